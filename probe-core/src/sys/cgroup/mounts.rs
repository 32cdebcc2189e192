//! Where cgroup file systems are mounted, from `/proc/self/mountinfo` (proc_pid_mountinfo(5)).

use std::path::PathBuf;

/// Mount points by what they give.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Mounts {
    pub v2: Option<PathBuf>,
    pub v1_memory: Option<PathBuf>,
    pub v1_cpu: Option<PathBuf>,
}

impl Mounts {
    /// A later line covers an earlier one at the same place, so the last of a kind counts, and a mount at
    /// `/sys/fs/cgroup` or below is preferred to one somewhere else.
    pub fn parse(mountinfo: &str) -> Mounts {
        let mut mounts = Mounts::default();
        for line in mountinfo.lines() {
            let Some((left, right)) = line.split_once(" - ") else { continue };
            let Some(point) = left.split(' ').nth(4).map(unescape) else { continue };
            let mut right = right.split(' ');
            let kind = right.next().unwrap_or_default();
            let options = right.nth(1).unwrap_or_default();
            let has = |controller: &str| options.split(',').any(|option| option == controller);
            if kind == "cgroup2" {
                take(&mut mounts.v2, &point);
            }
            if kind == "cgroup" && has("memory") {
                take(&mut mounts.v1_memory, &point);
            }
            if kind == "cgroup" && has("cpu") {
                take(&mut mounts.v1_cpu, &point);
            }
        }
        mounts
    }
}

fn take(slot: &mut Option<PathBuf>, point: &str) {
    let usual = |path: &PathBuf| path.starts_with("/sys/fs/cgroup");
    let point = PathBuf::from(point);
    if slot.as_ref().is_none_or(|old| usual(&point) || !usual(old)) {
        *slot = Some(point);
    }
}

/// Space, tab, newline and backslash are written as three octal digits.
fn unescape(text: &str) -> String {
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(mountinfo: &str, v2: Option<&str>, v1_memory: Option<&str>, v1_cpu: Option<&str>) {
        let expected = Mounts {
            v2: v2.map(PathBuf::from),
            v1_memory: v1_memory.map(PathBuf::from),
            v1_cpu: v1_cpu.map(PathBuf::from),
        };
        assert_eq!(Mounts::parse(mountinfo), expected, "{mountinfo}");
    }

    #[test]
    fn layouts() {
        let pure = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
        check(pure, Some("/sys/fs/cgroup"), None, None);
        let hybrid = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
                      32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
                      35 31 0:32 / /sys/fs/cgroup/memory rw shared:9 master:1 - cgroup cgroup rw,memory\n\
                      36 31 0:33 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n\
                      41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        check(
            hybrid,
            Some("/sys/fs/cgroup/unified"),
            Some("/sys/fs/cgroup/memory"),
            Some("/sys/fs/cgroup/cpu,cpuacct"),
        );
        let strange = "41 31 0:38 / /mnt/my\\040cg rw - cgroup2 cgroup2 rw\nnonsense\n\n";
        check(strange, Some("/mnt/my cg"), None, None);
        let second_elsewhere = format!("{pure}99 23 0:26 / /mnt/cg rw - cgroup2 cgroup2 rw\n");
        check(&second_elsewhere, Some("/sys/fs/cgroup"), None, None);
        check("", None, None, None);
    }
}
