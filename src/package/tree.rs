//! `Tree`: the files and folders that an archive's paths make, and paths that cannot be together.

use std::collections::{BTreeSet, HashMap};

use super::path::{ancestors, folded};
use crate::error::PackageError;

/// All paths so far. Two that are one on a file system that ignores case count as one.
#[derive(Default)]
pub(super) struct Tree {
    nodes: HashMap<String, Node>,
    /// Sorted, so that a folder comes before what is in it.
    folders: BTreeSet<String>,
}

struct Node {
    path: String,
    folder: bool,
    /// Whether it has an entry of its own, and is not only implied by the path of another.
    listed: bool,
    /// The path of the entry that brought it.
    entry: String,
}

impl Tree {
    /// Adds the path of an entry, and with it the folders above.
    ///
    /// # Errors
    /// - [`PackageError::Duplicate`], [`PackageError::CaseCollision`],
    ///   [`PackageError::FileIsFolder`]: it cannot be next to an earlier one.
    /// - [`PackageError::TooManyFolders`]: with it there are more than `limit`.
    pub(super) fn add(
        &mut self,
        path: &str,
        folder: bool,
        limit: usize,
    ) -> Result<(), PackageError> {
        let folded = folded(path);
        if !self.has_parent(path, &folded) {
            for (above, key) in ancestors(path).zip(ancestors(&folded)) {
                match self.nodes.get(key) {
                    None => self.insert(key, above, true, false, path, limit)?,
                    Some(node) => node.must_be(above, true, path)?,
                }
            }
        }
        match self.nodes.get_mut(&folded) {
            None => self.insert(&folded, path, folder, true, path, limit),
            Some(node) => {
                node.must_be(path, folder, path)?;
                if node.listed {
                    return Err(PackageError::Duplicate {
                        entry: path.to_owned(),
                    });
                }
                node.listed = true;
                Ok(())
            }
        }
    }

    /// All folders, each before what is in it.
    pub(super) fn into_folders(self) -> Vec<String> {
        self.folders.into_iter().collect()
    }

    /// Whether the folder right above is known, and so all the folders above that. Without this,
    /// many files in one deep folder would look up each of its many ancestors.
    fn has_parent(&self, path: &str, folded: &str) -> bool {
        let (Some((parent, _)), Some((key, _))) = (path.rsplit_once('/'), folded.rsplit_once('/'))
        else {
            return true;
        };
        self.nodes
            .get(key)
            .is_some_and(|node| node.folder && node.path == parent)
    }

    fn insert(
        &mut self,
        key: &str,
        path: &str,
        folder: bool,
        listed: bool,
        entry: &str,
        limit: usize,
    ) -> Result<(), PackageError> {
        if folder {
            if self.folders.len() >= limit {
                return Err(PackageError::TooManyFolders { limit });
            }
            self.folders.insert(path.to_owned());
        }
        let node = Node {
            path: path.to_owned(),
            folder,
            listed,
            entry: entry.to_owned(),
        };
        self.nodes.insert(key.to_owned(), node);
        Ok(())
    }
}

impl Node {
    fn must_be(&self, path: &str, folder: bool, entry: &str) -> Result<(), PackageError> {
        let (entry, other) = (entry.to_owned(), self.entry.clone());
        if self.path != path {
            return Err(PackageError::CaseCollision { entry, other });
        }
        if self.folder != folder {
            return Err(PackageError::FileIsFolder { entry, other });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(paths: &[&str]) -> Result<Vec<String>, PackageError> {
        let mut tree = Tree::default();
        for path in paths {
            let trimmed = path.trim_end_matches('/');
            tree.add(trimmed, trimmed != *path, 4)?;
        }
        Ok(tree.into_folders())
    }

    #[test]
    fn folders_come_before_what_is_in_them_and_are_implied_by_paths() {
        assert_eq!(
            build(&["b/c/x", "a", "b/", "b/c/", "b/y", "b-/z"]).unwrap(),
            ["b", "b-", "b/c"]
        );
    }

    #[test]
    fn paths_that_cannot_be_together() {
        for (paths, expected) in [
            (vec!["a", "a"], "\"a\" is there twice"),
            (vec!["a/", "a/"], "\"a\" is there twice"),
            (vec!["a/b", "a/", "a/"], "\"a\" is there twice"),
            (vec!["a", "A"], "\"A\" and \"a\" differ only in case"),
            (
                vec!["d/x", "D/y"],
                "\"D/y\" and \"d/x\" differ only in case",
            ),
            (vec!["d/x", "D/"], "\"D\" and \"d/x\" differ only in case"),
            (vec!["a", "a/b"], "\"a/b\" cannot be next to \"a\""),
            (vec!["a/b", "a"], "\"a\" cannot be next to \"a/b\""),
            (vec!["a/", "a"], "\"a\" cannot be next to \"a\""),
            (vec!["a/b/c", "a/b"], "\"a/b\" cannot be next to \"a/b/c\""),
        ] {
            let error = build(&paths).unwrap_err().to_string();
            assert!(error.contains(expected), "{paths:?}: {error}");
        }
    }

    #[test]
    fn implied_folders_count() {
        assert!(build(&["a/b/c/d/x", "a/b/c/d/y"]).is_ok());
        assert!(matches!(
            build(&["a/b/c/d/e/x"]),
            Err(PackageError::TooManyFolders { limit: 4 })
        ));
    }
}
