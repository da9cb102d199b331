//! Data files and texts as spreadsheets, exports and people make them.
