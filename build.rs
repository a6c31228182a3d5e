//! Names the sources that a program is built from, so that what one program has summed up is never taken for what
//! another one would have.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

/// What decides how the program computes.
const SOURCES: [&str; 2] = ["src", "Cargo.lock"];

fn main() {
    let mut hasher = DefaultHasher::new();
    for source in SOURCES {
        println!("cargo::rerun-if-changed={source}");
        for file in files(Path::new(source)) {
            let content = fs::read(&file).expect("a source can be read");
            (file.to_string_lossy(), content).hash(&mut hasher);
        }
    }
    println!("cargo::rustc-env=TONLE_SOURCES={}", hasher.finish());
}

/// All files below a path, in the order of their names; without hidden ones, as an editor makes them.
fn files(path: &Path) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path.to_path_buf()];
    }
    let entries = fs::read_dir(path).expect("a directory of sources can be read");
    let names = entries.map(|entry| entry.expect("it can be read").file_name());
    let seen = names.filter(|name| !name.to_string_lossy().starts_with('.'));
    let mut paths: Vec<_> = seen.map(|name| path.join(name)).collect();
    paths.sort();
    paths.iter().flat_map(|path| files(path)).collect()
}
