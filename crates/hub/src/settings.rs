//! What the environment says, by the rules of huggingface_hub's `constants.py` and `utils/_auth.py`.

use crate::{HubError, Result};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where the hub is unless HF_ENDPOINT says otherwise.
const ENDPOINT: &str = "https://huggingface.co";
/// The most bytes of a token's file that are read.
const MAX_TOKEN: u64 = 1 << 12;

/// An access token, and the variable or file that it is from.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    pub(crate) secret: String,
    pub(crate) origin: String,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Token(from {})", self.origin)
    }
}

/// Where the hub and the cache are, and how long to wait.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The hub's address, without a / at the end: HF_ENDPOINT.
    pub endpoint: String,
    /// The cache: HF_HUB_CACHE, HUGGINGFACE_HUB_CACHE, `hub` in HF_HOME, or `huggingface/hub` in XDG_CACHE_HOME or `~/.cache`.
    pub cache: PathBuf,
    /// HF_TOKEN, HUGGING_FACE_HUB_TOKEN, or what stands in the file HF_TOKEN_PATH, `token` in HF_HOME. Only the endpoint gets it.
    pub token: Option<Token>,
    /// Whether no request is to be made: HF_HUB_OFFLINE, or else TRANSFORMERS_OFFLINE.
    pub offline: bool,
    /// How long a connection may take: HF_HUB_ETAG_TIMEOUT seconds, or 10.
    pub connect_timeout: Duration,
    /// How long the next bytes may take: HF_HUB_DOWNLOAD_TIMEOUT seconds, or 10.
    pub read_timeout: Duration,
    /// A file of certificates (PEM) to trust instead of Mozilla's: REQUESTS_CA_BUNDLE, CURL_CA_BUNDLE or SSL_CERT_FILE.
    pub certificates: Option<PathBuf>,
    /// How often a request is made before its failure is an error.
    pub attempts: u32,
    /// The wait before the second attempt, which doubles with each further one.
    pub backoff: Duration,
}

impl Settings {
    /// What the environment of this process says.
    ///
    /// # Errors
    /// `Setting` for a value that cannot be used.
    pub fn from_env() -> Result<Self> {
        Settings::from_variables(&|name| std::env::var_os(name))
    }

    /// The same of any variables.
    ///
    /// # Errors
    /// `Setting` for a value that cannot be used.
    pub fn from_variables(variable: &dyn Fn(&str) -> Option<OsString>) -> Result<Self> {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let text = |name: &str| set(name).map(|value| value.to_string_lossy().into_owned());
        let home = set("HOME").or_else(|| set("USERPROFILE")).map(PathBuf::from);
        let path = |name: &str| set(name).map(|value| expanded(&value, home.as_deref()));
        let user_cache = path("XDG_CACHE_HOME").or_else(|| home.as_ref().map(|home| home.join(".cache")));
        let hf_home = path("HF_HOME").or_else(|| user_cache.map(|cache| cache.join("huggingface")));
        let in_home = |name: &str| hf_home.as_ref().map(|home| home.join(name));
        let cache = path("HF_HUB_CACHE").or_else(|| path("HUGGINGFACE_HUB_CACHE")).or_else(|| in_home("hub"));
        let cache = cache.ok_or_else(|| HubError::Setting {
            variable: "HOME",
            value: String::new(),
            why: "there is no home folder to keep downloads in; set HF_HOME to a folder".into(),
        })?;
        let cache = std::path::absolute(&cache).unwrap_or(cache);
        let seconds = |name: &'static str| match text(name).map(|value| (value.trim().parse::<u32>(), value))
        {
            None | Some((Ok(0), _)) => Ok(Duration::from_secs(10)),
            Some((Ok(seconds), _)) => Ok(Duration::from_secs(seconds.into())),
            Some((Err(_), value)) => {
                Err(HubError::Setting { variable: name, value, why: "must be whole seconds".into() })
            }
        };
        let offline = text("HF_HUB_OFFLINE").or_else(|| text("TRANSFORMERS_OFFLINE"));
        Ok(Settings {
            endpoint: endpoint(text("HF_ENDPOINT"))?,
            token: token(&text, path("HF_TOKEN_PATH").or_else(|| in_home("token")))?,
            cache,
            offline: offline.is_some_and(|value| is_true(&value)),
            connect_timeout: seconds("HF_HUB_ETAG_TIMEOUT")?,
            read_timeout: seconds("HF_HUB_DOWNLOAD_TIMEOUT")?,
            certificates: ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"]
                .iter()
                .find_map(|name| path(name)),
            attempts: 5,
            backoff: Duration::from_secs(1),
        })
    }
}

fn is_true(value: &str) -> bool {
    ["1", "ON", "YES", "TRUE"].contains(&value.to_ascii_uppercase().as_str())
}

/// A path with `~` at its beginning replaced by the home folder.
fn expanded(value: &std::ffi::OsStr, home: Option<&Path>) -> PathBuf {
    let path = Path::new(value);
    match (path.strip_prefix("~"), home) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => path.to_owned(),
    }
}

fn endpoint(given: Option<String>) -> Result<String> {
    let Some(value) = given else { return Ok(ENDPOINT.to_owned()) };
    let address = value.trim_end_matches('/');
    let host = address.strip_prefix("https://").or_else(|| address.strip_prefix("http://"));
    if host
        .is_none_or(|host| host.is_empty() || host.contains(|c: char| c.is_whitespace() || "@?#".contains(c)))
    {
        let why = "must be an address such as https://huggingface.co".to_owned();
        return Err(HubError::Setting { variable: "HF_ENDPOINT", value, why });
    }
    Ok(address.to_owned())
}

/// The token; a line break at its end, as editors leave it, does not belong to it.
fn token(text: &dyn Fn(&str) -> Option<String>, file: Option<PathBuf>) -> Result<Option<Token>> {
    for variable in ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"] {
        if let Some(value) = text(variable) {
            return clean(&value, variable, variable.to_owned());
        }
    }
    let Some(file) = file else { return Ok(None) };
    let unreadable =
        |why: String| HubError::Setting { variable: "HF_TOKEN_PATH", value: file.display().to_string(), why };
    match std::fs::metadata(&file) {
        Ok(found) if found.is_file() && found.len() <= MAX_TOKEN => {}
        Ok(_) => return Err(unreadable("no file with an access token".into())),
        Err(_) => return Ok(None),
    }
    let read = std::fs::read_to_string(&file).map_err(|error| unreadable(error.to_string()))?;
    clean(&read, "HF_TOKEN_PATH", file.display().to_string())
}

fn clean(value: &str, variable: &'static str, origin: String) -> Result<Option<Token>> {
    let secret: String = value.replace(['\r', '\n'], "").trim().to_owned();
    if secret.is_empty() {
        return Ok(None);
    }
    if !secret.chars().all(|c| c.is_ascii_graphic()) {
        // The secret itself is not printed.
        let why = "an access token has no blanks and only ASCII characters".to_owned();
        return Err(HubError::Setting { variable, value: "(hidden)".into(), why });
    }
    Ok(Some(Token { secret, origin }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)]) -> Result<Settings> {
        let find = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into());
        Settings::from_variables(&find)
    }

    #[test]
    fn folders_follow_the_rules_of_huggingface_hub() {
        let cache =
            |variables: &[(&str, &str)]| settings(&[&[("HOME", "/h")], variables].concat()).unwrap().cache;
        assert_eq!(cache(&[]), Path::new("/h/.cache/huggingface/hub"));
        assert_eq!(cache(&[("XDG_CACHE_HOME", "/x")]), Path::new("/x/huggingface/hub"));
        assert_eq!(cache(&[("XDG_CACHE_HOME", "/x"), ("HF_HOME", "~/f")]), Path::new("/h/f/hub"));
        assert_eq!(cache(&[("HF_HOME", "/f"), ("HUGGINGFACE_HUB_CACHE", "/old")]), Path::new("/old"));
        assert_eq!(cache(&[("HUGGINGFACE_HUB_CACHE", "/old"), ("HF_HUB_CACHE", "/new")]), Path::new("/new"));
        assert!(matches!(settings(&[]), Err(HubError::Setting { variable: "HOME", .. })));
    }

    #[test]
    fn offline_is_what_transformers_says_it_is() {
        let offline =
            |variables: &[(&str, &str)]| settings(&[&[("HOME", "/h")], variables].concat()).unwrap().offline;
        assert!(!offline(&[]) && !offline(&[("HF_HUB_OFFLINE", "0")]) && !offline(&[("HF_HUB_OFFLINE", "")]));
        for value in ["1", "true", "Yes", "ON"] {
            assert!(offline(&[("HF_HUB_OFFLINE", value)]) && offline(&[("TRANSFORMERS_OFFLINE", value)]));
        }
        assert!(!offline(&[("HF_HUB_OFFLINE", "0"), ("TRANSFORMERS_OFFLINE", "1")]));
    }

    #[test]
    fn a_token_comes_from_a_variable_or_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().to_str().unwrap();
        let token =
            |variables: &[(&str, &str)]| settings(&[&[("HF_HOME", home)], variables].concat()).unwrap().token;
        assert_eq!(token(&[]), None);
        std::fs::write(folder.path().join("token"), "hf_file\n").unwrap();
        assert_eq!(token(&[]).unwrap().secret, "hf_file");
        assert_eq!(token(&[("HF_TOKEN", " hf_variable \n")]).unwrap().secret, "hf_variable");
        assert_eq!(token(&[("HUGGING_FACE_HUB_TOKEN", "old")]).unwrap().origin, "HUGGING_FACE_HUB_TOKEN");
        let other = folder.path().join("other");
        assert_eq!(token(&[("HF_TOKEN_PATH", other.to_str().unwrap())]), None);
        let shown = format!("{:?}", settings(&[("HF_HOME", home), ("HF_TOKEN", "hf_secret")]).unwrap());
        assert!(!shown.contains("hf_secret"), "{shown}");
        let error = settings(&[("HF_HOME", home), ("HF_TOKEN", "hf secret")]).unwrap_err().to_string();
        assert!(!error.contains("hf secret") && error.contains("HF_TOKEN"), "{error}");
    }

    #[test]
    fn wrong_values_are_named() {
        for (name, value) in [
            ("HF_ENDPOINT", "huggingface.co"),
            ("HF_ENDPOINT", "https://"),
            ("HF_ENDPOINT", "https://user@host"),
            ("HF_HUB_ETAG_TIMEOUT", "soon"),
            ("HF_HUB_DOWNLOAD_TIMEOUT", "-1"),
        ] {
            let error = settings(&[("HOME", "/h"), (name, value)]).unwrap_err().to_string();
            assert!(error.contains(&format!("{name}={value}")), "{error}");
        }
        let mirror = settings(&[("HOME", "/h"), ("HF_ENDPOINT", "http://mirror:80/hf/")]).unwrap();
        assert_eq!(mirror.endpoint, "http://mirror:80/hf");
    }
}
