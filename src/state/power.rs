//! What is left of files when the power fails: for tests, beside [`super::disk`].
//!
//! A process that is killed leaves everything to the system, which writes it by and by. Without power only that is left
//! which a sync covers: the bytes of a file by a sync of the file, a name given or taken away by one of its directory.
//! What no sync covers may be there all the same, in any part.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// What goes with the power, of all that no sync covers.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Bytes and names.
    Everything,
    /// Bytes; a name that was given belongs to a file without them.
    Bytes,
    /// Names; whatever was written under those that are left is there.
    Names,
    /// Some of both, as this seed decides: names in any order, files cut or zero from some byte on.
    Some(u64),
}

/// Names, and the numbers of what they stand for; nothing stands for a directory.
type Names = BTreeMap<PathBuf, Option<usize>>;

/// A change of names that no sync covers.
#[derive(Debug)]
struct Renaming {
    /// The directory whose sync covers it.
    directory: PathBuf,
    /// What each of these stands for from then on.
    names: Vec<(PathBuf, Option<Option<usize>>)>,
    /// The other name of a directory: what lies in it, as far as it does, goes along.
    moved: Option<(PathBuf, PathBuf)>,
}

impl Renaming {
    fn follow(&mut self, from: &Path, to: &Path) {
        let paths = self.names.iter_mut().map(|(name, _)| name).chain([&mut self.directory]);
        for path in paths {
            if let Ok(rest) = path.strip_prefix(from) {
                *path = to.components().chain(rest.components()).collect();
            }
        }
    }
}

/// What is on the disk, beside what the program sees.
#[derive(Debug, Default)]
pub(super) struct Platter {
    /// The synced bytes of each file, by its number.
    synced: Vec<Vec<u8>>,
    /// The names that the program sees.
    seen: Names,
    /// The names on the disk.
    kept: Names,
    /// How one becomes the other.
    pending: Vec<Renaming>,
}

impl Platter {
    /// A disk on which everything in `directory` is synced.
    pub(super) fn holding(directory: &Path) -> io::Result<Self> {
        let mut platter = Self::default();
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            if path.is_dir() {
                platter.directory_made(&path);
            } else {
                platter.created(&path);
                platter.synced(platter.number(&path))?;
            }
        }
        platter.directory_synced(directory);
        Ok(platter)
    }

    /// A directory was made.
    pub(super) fn directory_made(&mut self, path: &Path) {
        self.change(path, vec![(path.to_owned(), Some(None))]);
    }

    /// A file was made, or one was opened to be written.
    pub(super) fn created(&mut self, path: &Path) {
        if !self.seen.contains_key(path) {
            self.synced.push(Vec::new());
            let number = self.synced.len() - 1;
            self.change(path, vec![(path.to_owned(), Some(Some(number)))]);
        }
    }

    /// The number of the file of this name.
    pub(super) fn number(&self, path: &Path) -> Option<usize> {
        self.seen.get(path).copied().flatten()
    }

    /// A file or a directory got another name.
    pub(super) fn renamed(&mut self, from: &Path, to: &Path) {
        if let Some(number) = self.seen.get(from).copied() {
            let names = vec![(from.to_owned(), None), (to.to_owned(), Some(number))];
            let moved = number.is_none().then(|| (from.to_owned(), to.to_owned()));
            self.change_moving(to, names, moved);
        }
    }

    /// A file or a directory was removed.
    pub(super) fn removed(&mut self, path: &Path) {
        let below: Vec<_> = self.seen.keys().filter(|name| name.starts_with(path)).collect();
        let below = below.into_iter().map(|name| (name.clone(), None)).collect();
        self.change(path, below);
    }

    /// All bytes of a file are on the disk.
    pub(super) fn synced(&mut self, number: Option<usize>) -> io::Result<()> {
        let name = self.seen.iter().find(|(_, other)| number.is_some() && **other == number);
        if let (Some((name, _)), Some(number)) = (name, number) {
            self.synced[number] = fs::read(name)?;
        }
        Ok(())
    }

    /// All names in a directory are on the disk.
    pub(super) fn directory_synced(&mut self, path: &Path) {
        let pending = std::mem::take(&mut self.pending);
        let (synced, pending): (Vec<_>, Vec<_>) =
            pending.into_iter().partition(|renaming| renaming.directory == path);
        self.pending = pending;
        for renaming in synced {
            apply(&mut self.kept, &renaming);
            // What is to be done in a directory is done under the name that it has on the disk.
            if let Some((from, to)) = &renaming.moved {
                self.pending.iter_mut().for_each(|waiting| waiting.follow(from, to));
            }
        }
    }

    fn change(&mut self, of: &Path, names: Vec<(PathBuf, Option<Option<usize>>)>) {
        self.change_moving(of, names, None);
    }

    fn change_moving(
        &mut self,
        of: &Path,
        names: Vec<(PathBuf, Option<Option<usize>>)>,
        moved: Option<(PathBuf, PathBuf)>,
    ) {
        let directory = of.parent().unwrap_or(Path::new("")).to_owned();
        let renaming = Renaming { directory, names, moved };
        apply(&mut self.seen, &renaming);
        self.pending.push(renaming);
    }

    /// Leaves in `directory` what is left without power, and forgets the rest.
    pub(super) fn lose(&mut self, directory: &Path, loss: Loss) -> io::Result<()> {
        let mut random =
            ChaCha8Rng::seed_from_u64(if let Loss::Some(seed) = loss { seed } else { 0 });
        let mut names = std::mem::take(&mut self.kept);
        for renaming in std::mem::take(&mut self.pending) {
            let is_kept = match loss {
                Loss::Everything | Loss::Names => false,
                Loss::Bytes => true,
                Loss::Some(_) => random.random_bool(0.5),
            };
            if is_kept {
                apply(&mut names, &renaming);
            }
        }
        // What lies in a directory without a name is lost with it.
        let known: BTreeSet<_> = names.keys().cloned().collect();
        let made = |outer: &Path| outer == directory || known.contains(outer);
        names.retain(|name, _| name.parent().is_some_and(made));
        let bytes = self.bytes_left(loss, &mut random)?;
        empty(directory)?;
        for (name, number) in &names {
            match number {
                None => fs::create_dir(name)?,
                Some(number) => {
                    fs::write(name, &bytes[*number])?;
                    self.synced[*number].clone_from(&bytes[*number]);
                }
            }
        }
        (self.seen, self.kept) = (names.clone(), names);
        Ok(())
    }

    /// The bytes that are left of each file.
    fn bytes_left(&self, loss: Loss, random: &mut ChaCha8Rng) -> io::Result<Vec<Vec<u8>>> {
        let mut left = self.synced.clone();
        for (name, number) in &self.seen {
            let (Some(number), false) = (*number, matches!(loss, Loss::Everything | Loss::Bytes))
            else {
                continue;
            };
            let mut bytes = fs::read(name)?;
            if let (Loss::Some(_), Some(more)) =
                (loss, bytes.strip_prefix(&self.synced[number][..]))
            {
                let cut = bytes.len() - random.random_range(0..=more.len());
                match random.random_bool(0.5) {
                    true => bytes.truncate(cut),
                    false => bytes[cut..].fill(0),
                }
            }
            left[number] = bytes;
        }
        Ok(left)
    }
}

fn apply(names: &mut Names, renaming: &Renaming) {
    for (name, number) in &renaming.names {
        match number {
            Some(number) => names.insert(name.clone(), *number),
            None => names.remove(name),
        };
    }
    if let Some((from, to)) = &renaming.moved {
        let inside: Vec<_> = names.keys().filter(|name| name.starts_with(from)).cloned().collect();
        for name in inside {
            let number = names.remove(&name).flatten();
            names.extend(name.strip_prefix(from).ok().map(|rest| (to.join(rest), number)));
        }
    }
}

fn empty(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        match path.is_dir() {
            true => fs::remove_dir_all(path)?,
            false => fs::remove_file(path)?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file that was synced and appended to, one that got its name only since, one that was removed only since, and
    /// a directory with a file, of which nothing was synced.
    fn platter(outer: &Path) -> Platter {
        let mut platter = Platter::default();
        let write = |name: &str, text: &str| fs::write(outer.join(name), text).unwrap();
        for name in ["appended", "old.tmp", "removed"] {
            write(name, "synced");
            platter.created(&outer.join(name));
            platter.synced(platter.number(&outer.join(name))).unwrap();
        }
        platter.directory_synced(outer);
        write("appended", "synced, and more");
        fs::rename(outer.join("old.tmp"), outer.join("new")).unwrap();
        platter.renamed(&outer.join("old.tmp"), &outer.join("new"));
        fs::remove_file(outer.join("removed")).unwrap();
        platter.removed(&outer.join("removed"));
        fs::create_dir(outer.join("inner")).unwrap();
        platter.directory_made(&outer.join("inner"));
        write("inner/file", "text");
        platter.created(&outer.join("inner/file"));
        platter
    }

    fn left(outer: &Path) -> BTreeMap<String, String> {
        let mut left = BTreeMap::new();
        for name in ["appended", "old.tmp", "new", "removed", "inner/file"] {
            if let Ok(text) = fs::read_to_string(outer.join(name)) {
                left.insert(name.to_owned(), text);
            }
        }
        left
    }

    #[test]
    fn what_no_sync_covers_goes_with_the_power() {
        let of = |expected: &[(&str, &str)]| {
            expected.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
        };
        let everything: BTreeMap<_, _> =
            of(&[("appended", "synced"), ("old.tmp", "synced"), ("removed", "synced")]);
        let bytes = of(&[("appended", "synced"), ("new", "synced"), ("inner/file", "")]);
        let names =
            of(&[("appended", "synced, and more"), ("old.tmp", "synced"), ("removed", "synced")]);
        for (loss, expected) in
            [(Loss::Everything, everything), (Loss::Bytes, bytes), (Loss::Names, names)]
        {
            let outer = tempfile::tempdir().unwrap();
            platter(outer.path()).lose(outer.path(), loss).unwrap();
            assert_eq!(left(outer.path()), expected, "{loss:?}");
        }
        let some = |seed| {
            let outer = tempfile::tempdir().unwrap();
            platter(outer.path()).lose(outer.path(), Loss::Some(seed)).unwrap();
            left(outer.path())
        };
        let all: BTreeSet<_> = (0..200).map(some).collect();
        assert!(all.len() > 40, "{}", all.len());
        assert!(all.iter().all(|left| left["appended"].starts_with("synced")));
        assert!(all.iter().all(|left| left.contains_key("new") != left.contains_key("old.tmp")));
    }

    #[test]
    fn a_directory_takes_along_what_was_synced_in_it() {
        for is_synced in [false, true] {
            let outer = tempfile::tempdir().unwrap();
            let mut platter = platter(outer.path());
            let [from, to] = ["inner", "other"].map(|name| outer.path().join(name));
            if is_synced {
                platter.directory_synced(&from);
            }
            fs::rename(&from, &to).unwrap();
            platter.renamed(&from, &to);
            platter.directory_synced(outer.path());
            if is_synced {
                platter.lose(outer.path(), Loss::Everything).unwrap();
                assert!(to.join("file").exists() && !from.exists());
                continue;
            }
            // Whether it is there is for a sync of the directory to say, under its new name.
            platter.lose(outer.path(), Loss::Bytes).unwrap();
            assert!(to.join("file").exists());
            fs::write(to.join("more"), "text").unwrap();
            platter.created(&to.join("more"));
            platter.lose(outer.path(), Loss::Everything).unwrap();
            assert!(to.join("file").exists() && !to.join("more").exists());
        }
    }

    #[test]
    fn a_sync_of_a_directory_keeps_its_names() {
        let outer = tempfile::tempdir().unwrap();
        let mut platter = platter(outer.path());
        platter.directory_synced(&outer.path().join("inner"));
        platter.directory_synced(outer.path());
        platter.lose(outer.path(), Loss::Everything).unwrap();
        let names: Vec<_> = left(outer.path()).into_keys().collect();
        assert_eq!(names, ["appended", "inner/file", "new"]);
    }
}
