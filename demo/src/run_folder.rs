use std::{
    env, fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use anyhow::Context;
use nix::unistd::geteuid;

const PREFIX: &str = "run-";

/// The folder of one run: the servers' data and everybody's logs. It stays when the run fails, until the next run.
pub struct RunFolder(PathBuf);

impl RunFolder {
    /// Makes one named after this process below `home`, and removes those of processes that are gone.
    pub fn create(home: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(home).with_context(|| format!("cannot make {}", home.display()))?;
        let temporary = env::temp_dir().join("dotmask-demo");
        // Postgres refuses to run as root and is run as another user, who may be shut out of root's own folders.
        let home = if geteuid().is_root() && !others_may_enter(home) { temporary.as_path() } else { home };
        fs::create_dir_all(home).with_context(|| format!("cannot make {}", home.display()))?;
        remove_abandoned(home);
        let path = home.join(format!("{PREFIX}{}", std::process::id()));
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Removes it with all it holds.
    pub fn remove(self) -> anyhow::Result<()> {
        fs::remove_dir_all(&self.0).with_context(|| format!("cannot remove {}", self.0.display()))
    }
}

fn others_may_enter(folder: &Path) -> bool {
    const OTHERS_ENTER: u32 = 0o001;
    folder.ancestors().filter_map(|folder| fs::metadata(folder).ok()).all(|folder| folder.mode() & OTHERS_ENTER != 0)
}

/// What cannot be removed stays: it is in nobody's way.
fn remove_abandoned(home: &Path) {
    for entry in fs::read_dir(home).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let process: Option<u32> = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.parse().ok());
        if process.is_some_and(|process| !Path::new(&format!("/proc/{process}")).exists()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_run_removes_what_failed_runs_left_and_nothing_else() {
        let home = tempfile::tempdir().unwrap();
        // Beyond every Linux's largest process id.
        let (abandoned, other) = (home.path().join("run-4999999"), home.path().join("out"));
        fs::create_dir_all(abandoned.join("logs")).unwrap();
        fs::create_dir_all(&other).unwrap();
        let alive = home.path().join(format!("run-{}", std::os::unix::process::parent_id()));
        fs::create_dir_all(&alive).unwrap();
        remove_abandoned(home.path());
        assert!(!abandoned.exists());
        assert!(other.exists() && alive.exists());
    }

    #[test]
    fn knows_a_folder_that_others_cannot_reach() {
        use std::os::unix::fs::PermissionsExt as _;
        let home = tempfile::tempdir().unwrap();
        let inner = home.path().join("inner");
        fs::create_dir(&inner).unwrap();
        fs::set_permissions(home.path(), fs::Permissions::from_mode(0o700)).unwrap();
        assert!(!others_may_enter(&inner));
        fs::set_permissions(home.path(), fs::Permissions::from_mode(0o711)).unwrap();
        assert!(others_may_enter(&inner));
    }
}
