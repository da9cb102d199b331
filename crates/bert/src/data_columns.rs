//! [`DataColumns`]: which columns of a table a classifier was trained on, kept in its `config.json`.

use crate::ModelConfig;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The field of `config.json`. `transformers` keeps fields that it does not know.
const FIELD: &str = "vitrine";

/// The columns of the table that a classifier was trained on; neither where the data had no columns.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DataColumns {
    /// The column of the texts.
    #[serde(rename = "text_column")]
    pub text: Option<String>,
    /// The column of the labels.
    #[serde(rename = "label_column")]
    pub label: Option<String>,
}

impl ModelConfig {
    /// The columns that the model was trained on; none where the file does not say, or says something else.
    pub fn data_columns(&self) -> DataColumns {
        let field = self.extra.get(FIELD).cloned().unwrap_or(Value::Null);
        serde_json::from_value(field).unwrap_or_default()
    }

    /// The same model, which remembers these columns.
    pub fn with_data_columns(mut self, columns: &DataColumns) -> Self {
        self.extra.shift_remove(FIELD);
        if *columns != DataColumns::default()
            && let Ok(field) = serde_json::to_value(columns)
        {
            self.extra.insert(FIELD.into(), field);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn columns_are_written_and_read() {
        let columns = DataColumns { text: Some("review".into()), label: None };
        let written =
            ModelConfig::bert_mini().with_data_columns(&columns).to_json("BertForSequenceClassification");
        let read = ModelConfig::parse(&written, Path::new("config.json")).unwrap();
        assert_eq!(read.data_columns(), columns);
        let forgotten = read.with_data_columns(&DataColumns::default());
        assert!(!forgotten.to_json("x").contains("vitrine"));
        let odd = ModelConfig::parse(r#"{"vitrine": 5}"#, Path::new("config.json")).unwrap();
        assert_eq!(odd.data_columns(), DataColumns::default());
    }
}
