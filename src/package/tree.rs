//! `Tree`: the files and directories that an archive's paths create, and conflicts between paths.

use std::collections::{BTreeSet, HashMap};

use super::path::{ancestors, folded};
use crate::error::PackageError;

/// All paths so far. Two that are one on a file system that ignores case count as one.
pub(super) struct Tree {
    /// The limit on directories.
    limit: usize,
    nodes: HashMap<String, Node>,
    /// Sorted, so that a directory comes before what is in it.
    dirs: BTreeSet<String>,
    /// The limit was exceeded, which was reported; later paths are not checked.
    full: bool,
}

struct Node {
    path: String,
    is_dir: bool,
    /// Whether it has an entry of its own, and is not only implied by the path of another.
    listed: bool,
    /// The path of the entry that brought it.
    entry: String,
}

impl Tree {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            nodes: HashMap::new(),
            dirs: BTreeSet::new(),
            full: false,
        }
    }

    /// Adds the path of an entry, and the directories above it.
    ///
    /// # Errors
    /// - [`PackageError::Duplicate`], [`PackageError::CaseCollision`],
    ///   [`PackageError::FileIsDirectory`]: it conflicts with an earlier one.
    /// - [`PackageError::TooManyDirectories`], once: it is the first above the limit.
    pub(super) fn add(&mut self, path: &str, is_dir: bool) -> Result<(), PackageError> {
        if self.full {
            return Ok(());
        }
        let folded = folded(path);
        self.add_dirs_above(path, &folded)?;
        match self.nodes.get_mut(&folded) {
            None => self.insert(&folded, path, is_dir, true, path),
            Some(node) => {
                node.must_be(path, is_dir, path)?;
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

    /// Returns all directories, each before what is in it.
    pub(super) fn into_dirs(self) -> Vec<String> {
        self.dirs.into_iter().collect()
    }

    /// Adds the directories above a path that are not there yet.
    ///
    /// If a directory is there, so are all above it; so the last that is there is found by bisection:
    /// looking up each of hundreds of ancestors, for each of thousands of entries, would take seconds.
    fn add_dirs_above(&mut self, path: &str, folded: &str) -> Result<(), PackageError> {
        let above: Vec<(&str, &str)> = ancestors(path).zip(ancestors(folded)).collect();
        let known = above.partition_point(|(_, key)| self.nodes.contains_key(*key));
        let (known, unknown) = above.split_at(known);
        if let Some((above, key)) = known.last()
            && let Some(node) = self.nodes.get(*key)
        {
            node.must_be(above, true, path)?;
        }
        for (above, key) in unknown {
            self.insert(key, above, true, false, path)?;
        }
        Ok(())
    }

    fn insert(
        &mut self,
        key: &str,
        path: &str,
        is_dir: bool,
        listed: bool,
        entry: &str,
    ) -> Result<(), PackageError> {
        if is_dir {
            let limit = self.limit;
            if self.dirs.len() >= limit {
                self.full = true;
                return Err(PackageError::TooManyDirectories { limit });
            }
            self.dirs.insert(path.to_owned());
        }
        let node = Node {
            path: path.to_owned(),
            is_dir,
            listed,
            entry: entry.to_owned(),
        };
        self.nodes.insert(key.to_owned(), node);
        Ok(())
    }
}

impl Node {
    fn must_be(&self, path: &str, is_dir: bool, entry: &str) -> Result<(), PackageError> {
        let (entry, other) = (entry.to_owned(), self.entry.clone());
        if self.path != path {
            return Err(PackageError::CaseCollision { entry, other });
        }
        if self.is_dir != is_dir {
            return Err(PackageError::FileIsDirectory { entry, other });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::assert_matches;

    fn build(paths: &[&str]) -> Result<Vec<String>, PackageError> {
        let mut tree = Tree::new(4);
        for path in paths {
            let trimmed = path.trim_end_matches('/');
            tree.add(trimmed, trimmed != *path)?;
        }
        Ok(tree.into_dirs())
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
    fn what_is_known_of_a_deep_path_is_found_wherever_it_ends() {
        let mut tree = Tree::new(1_000);
        let deep = |depth: usize, name: &str| "x/".repeat(depth) + name;
        tree.add(&deep(100, "a"), false).unwrap();
        for depth in 0..=100 {
            tree.add(&deep(depth, "file"), false).unwrap();
            tree.add(&deep(depth, "new/file"), false).unwrap();
            let error = tree.add(&deep(depth, "FILE/y"), false).unwrap_err();
            assert_matches!(error, PackageError::CaseCollision { .. }, "{depth}");
            let error = tree.add(&deep(depth, "file/y"), false).unwrap_err();
            assert_matches!(error, PackageError::FileIsDirectory { .. }, "{depth}");
        }
        assert_eq!(tree.into_dirs().len(), 100 + 101);
    }

    #[test]
    fn implied_folders_count() {
        assert!(build(&["a/b/c/d/x", "a/b/c/d/y"]).is_ok());
        assert_matches!(
            build(&["a/b/c/d/e/x"]),
            Err(PackageError::TooManyDirectories { limit: 4 })
        );
    }
}
