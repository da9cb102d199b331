//! [`Source`]: where the files of a model are, a folder or a set of named bytes; and [`Input`], one of these files, open.

use crate::read::{self, WEB_PAGE, unusable};
use crate::{NnError, Result, refuse_lfs_pointer};
use std::borrow::Cow;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};

/// Files in memory, such as those of a model that is embedded in the program.
#[derive(Debug)]
pub struct Bundle {
    /// What stands in the place of the folder's path in messages.
    pub name: &'static str,
    /// The files' names and contents.
    pub files: &'static [(&'static str, &'static [u8])],
}

impl Bundle {
    /// The content of a file.
    pub fn file(&self, name: &str) -> Option<&'static [u8]> {
        self.files.iter().find(|(there, _)| *there == name).map(|(_, bytes)| *bytes)
    }
}

/// Where the files of a model are. Whatever reads a model reads it from here.
#[derive(Clone, Debug)]
pub enum Source {
    /// A folder.
    Folder(PathBuf),
    /// Named bytes.
    Memory(&'static Bundle),
}

impl Source {
    /// What messages call it: the folder's path, or the name of the bundle.
    pub fn path(&self) -> &Path {
        match self {
            Source::Folder(folder) => folder,
            Source::Memory(bundle) => Path::new(bundle.name),
        }
    }

    /// What messages call one of its files.
    pub fn path_of(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// The folder, if it is one.
    pub fn folder(&self) -> Option<&Path> {
        match self {
            Source::Folder(folder) => Some(folder),
            Source::Memory(_) => None,
        }
    }

    /// Whether there is something of this name, be it a link to nothing.
    pub fn has(&self, name: &str) -> bool {
        match self {
            Source::Folder(folder) => folder.join(name).symlink_metadata().is_ok(),
            Source::Memory(bundle) => bundle.file(name).is_some(),
        }
    }

    /// The names of its files, sorted; of a folder that cannot be read none, and of a large one not all.
    pub fn names(&self) -> Vec<String> {
        match self {
            Source::Folder(folder) => read::names(folder),
            Source::Memory(bundle) => {
                let mut names: Vec<String> =
                    bundle.files.iter().map(|(name, _)| (*name).to_owned()).collect();
                names.sort_unstable();
                names
            }
        }
    }

    /// Opens a file.
    ///
    /// # Errors
    /// As [`Input::open`]; `Io` of the kind `NotFound` where there is no file of this name.
    pub fn open(&self, name: &str) -> Result<Input> {
        match self {
            Source::Folder(folder) => Input::open(&folder.join(name)),
            Source::Memory(bundle) => {
                let path = self.path_of(name);
                let Some(bytes) = bundle.file(name) else {
                    return Err(NnError::Io { path, source: ErrorKind::NotFound.into() });
                };
                Ok(Input { path, len: bytes.len() as u64, content: Content::Bytes(bytes) })
            }
        }
    }

    /// The text of a file of at most `most` bytes, without a byte order mark.
    ///
    /// # Errors
    /// As [`Source::open`] and [`Input::text`].
    pub fn text(&self, name: &str, most: u64) -> Result<String> {
        self.open(name)?.text(most)
    }
}

impl<P: AsRef<Path> + ?Sized> From<&P> for Source {
    fn from(folder: &P) -> Self {
        Source::Folder(folder.as_ref().to_owned())
    }
}

impl From<&'static Bundle> for Source {
    fn from(bundle: &'static Bundle) -> Self {
        Source::Memory(bundle)
    }
}

impl From<&Source> for Source {
    fn from(source: &Source) -> Self {
        source.clone()
    }
}

/// A file that is open.
#[derive(Debug)]
pub struct Input {
    path: PathBuf,
    len: u64,
    content: Content,
}

#[derive(Debug)]
enum Content {
    File(File),
    Bytes(&'static [u8]),
}

impl Input {
    /// Opens a regular file, or a link to one.
    ///
    /// # Errors
    /// As [`read::open`].
    pub fn open(path: &Path) -> Result<Self> {
        let (file, len) = read::open(path)?;
        Ok(Input { path: path.to_owned(), len, content: Content::File(file) })
    }

    /// What messages call it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its length in bytes when it was opened.
    pub fn size(&self) -> u64 {
        self.len
    }

    /// Reads from a place, whatever other threads read.
    ///
    /// # Errors
    /// `UnexpectedEof` where it ends before `bytes` are full; those of the system.
    pub fn read_at(&self, start: u64, bytes: &mut [u8]) -> io::Result<()> {
        match &self.content {
            Content::File(file) => read_exact_at(file, start, bytes),
            Content::Bytes(content) => {
                let rest = usize::try_from(start).ok().and_then(|start| content.get(start..));
                let Some(wanted) = rest.and_then(|rest| rest.get(..bytes.len())) else {
                    return Err(ErrorKind::UnexpectedEof.into());
                };
                bytes.copy_from_slice(wanted);
                Ok(())
            }
        }
    }

    /// All bytes, if they are at most `most`.
    ///
    /// # Errors
    /// `LfsPointer`; `Unusable` for a longer file; `Io`.
    pub fn bytes(self, most: u64) -> Result<Cow<'static, [u8]>> {
        let io = |source| NnError::Io { path: self.path.clone(), source };
        let bytes = match self.content {
            Content::Bytes(bytes) => Cow::Borrowed(bytes),
            Content::File(file) => {
                let mut bytes = Vec::with_capacity(self.len.min(most) as usize);
                file.take(most.saturating_add(1)).read_to_end(&mut bytes).map_err(io)?;
                Cow::Owned(bytes)
            }
        };
        let len = self.len.max(bytes.len() as u64);
        if len > most {
            let why = format!("{len} bytes; at most {} MiB of this file are read", most >> 20);
            return Err(unusable(&self.path, why));
        }
        refuse_lfs_pointer(&self.path, &bytes)?;
        Ok(bytes)
    }

    /// The text of a file of at most `most` bytes, without a byte order mark.
    ///
    /// # Errors
    /// As [`Input::bytes`]; `Unusable` for a web page, and for bytes that are not UTF-8.
    pub fn text(self, most: u64) -> Result<String> {
        let path = self.path.clone();
        let text = String::from_utf8(self.bytes(most)?.into_owned()).map_err(|error| {
            let at = error.utf8_error().valid_up_to();
            unusable(&path, format!("byte {at} is not UTF-8; save the file as UTF-8"))
        })?;
        if text.trim_start().starts_with('<') {
            return Err(unusable(&path, WEB_PAGE));
        }
        Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
    }
}

/// Reads from a place of a file, whatever other threads read of it.
#[cfg(unix)]
fn read_exact_at(file: &File, start: u64, bytes: &mut [u8]) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, start)
}

#[cfg(not(unix))]
fn read_exact_at(mut file: &File, start: u64, bytes: &mut [u8]) -> io::Result<()> {
    use std::io::{Seek, SeekFrom};
    static ONE_AT_A_TIME: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    file.seek(SeekFrom::Start(start))?;
    file.read_exact(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    static BUNDLE: Bundle =
        Bundle { name: "embedded", files: &[("a.txt", b"\xef\xbb\xbfabc"), ("b", b"<html>")] };

    #[test]
    fn bytes_in_memory_are_read_as_files_are() {
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes) in BUNDLE.files {
            std::fs::write(folder.path().join(name), bytes).unwrap();
        }
        for source in [Source::from(&BUNDLE), Source::from(folder.path())] {
            assert_eq!(source.names(), ["a.txt", "b"]);
            assert!(source.has("b") && !source.has("c"));
            assert_eq!(source.text("a.txt", 6).unwrap(), "abc");
            let says = |name: &str, most| source.text(name, most).unwrap_err().to_string();
            assert!(says("a.txt", 5).contains("6 bytes"));
            assert!(says("b", 100).contains("web page"));
            assert!(says("c", 100).starts_with(source.path_of("c").to_str().unwrap()));
            let input = source.open("a.txt").unwrap();
            let mut bytes = [0; 2];
            input.read_at(4, &mut bytes).unwrap();
            assert_eq!((bytes, input.size()), (*b"bc", 6));
            for start in [5, 6, 7, u64::MAX] {
                let error = input.read_at(start, &mut bytes).unwrap_err();
                assert!(start == u64::MAX || error.kind() == ErrorKind::UnexpectedEof, "{start}: {error}");
            }
        }
        assert_eq!(Source::from(&BUNDLE).path_of("c"), Path::new("embedded/c"));
    }
}
