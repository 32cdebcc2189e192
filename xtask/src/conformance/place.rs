//! From the file that a test is written in to the test binary that runs it.

/// One test binary.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Binary {
    pub package: &'static str,
    pub target: Target,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Target {
    Lib,
    Bin(&'static str),
    /// A file or folder of `tests/`.
    Test(String),
}

/// Where a file's tests are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    pub binary: Binary,
    /// Module path of the file inside of the binary.
    pub modules: Vec<String>,
}

/// Folders of packages that hold cases; the root package is the last, since every path starts with its folder.
const PACKAGES: &[(&str, &str)] =
    &[("probe-core/", "probe-core"), ("probe-ebpf/", "probe-ebpf"), ("", "defib")];

impl Binary {
    /// Arguments of `cargo test` that build this binary alone.
    pub fn cargo_args(&self) -> Vec<&str> {
        let mut args = vec!["--package", self.package];
        match &self.target {
            Target::Lib => args.push("--lib"),
            Target::Bin(name) => args.extend(["--bin", name]),
            Target::Test(name) => args.extend(["--test", name]),
        }
        args
    }
}

impl Place {
    /// `files`: everything in the repository; it tells how a folder of tests is built. None: no test binary has the
    /// file.
    pub fn of(file: &str, files: &[String]) -> Option<Place> {
        let (dir, package) = PACKAGES.iter().find(|(dir, _)| file.starts_with(dir))?;
        let inside = file.strip_prefix(dir)?.strip_suffix(".rs")?;
        let has = |path: String| files.contains(&format!("{dir}{path}"));
        let mut modules: Vec<String> = inside.split('/').map(str::to_owned).collect();
        let top = modules.remove(0);
        let target = match top.as_str() {
            "src" if has("src/lib.rs".to_owned()) => Target::Lib,
            "src" => Target::Bin(package),
            "tests" => {
                let name = modules.first()?.clone();
                // Without a main.rs the folder belongs to the file of the same name, as a module of its name.
                if has(format!("tests/{name}/main.rs")) {
                    modules.remove(0);
                } else if modules.len() == 1 {
                    modules.clear();
                } else if !has(format!("tests/{name}.rs")) {
                    return None;
                }
                Target::Test(name)
            }
            _ => return None,
        };
        if modules.last().is_some_and(|last| matches!(last.as_str(), "mod" | "lib" | "main")) {
            modules.pop();
        }
        Some(Place { binary: Binary { package, target }, modules })
    }

    /// Those of the binary's tests that are `function` of this file. A macro may make several of one function, in
    /// modules of their own; what lies deeper belongs to another file.
    pub fn tests_of<'a>(&self, function: &str, all: &'a [String]) -> Vec<&'a str> {
        let is_meant = |name: &str| {
            let parts: Vec<&str> = name.split("::").collect();
            parts.last() == Some(&function)
                && parts.len() > self.modules.len()
                && self.modules.iter().zip(&parts).all(|(module, part)| module == part)
        };
        let depth = |name: &str| name.matches("::").count();
        let meant: Vec<&str> = all.iter().map(String::as_str).filter(|name| is_meant(name)).collect();
        let least = meant.iter().map(|name| depth(name)).min();
        meant.into_iter().filter(|name| Some(depth(name)) == least).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILES: &[&str] = &[
        "probe-core/src/lib.rs",
        "probe-core/tests/engine/main.rs",
        "probe-core/tests/engine/http.rs",
        "src/main.rs",
        "tests/sensor.rs",
        "tests/sensor/kills.rs",
        "tests/support/lib.rs",
    ];

    fn place(file: &str) -> Option<Place> {
        Place::of(file, &FILES.iter().map(|file| (*file).to_owned()).collect::<Vec<_>>())
    }

    fn check(file: &str, args: &[&str], modules: &[&str]) {
        let place = place(file).unwrap();
        assert_eq!(place.binary.cargo_args(), args, "{file}");
        assert_eq!(place.modules, modules, "{file}");
    }

    #[test]
    fn files_have_binaries() {
        let core = ["--package", "probe-core", "--lib"];
        check("probe-core/src/decide/tests/actions.rs", &core, &["decide", "tests", "actions"]);
        check("probe-core/src/executor/tests/mod.rs", &core, &["executor", "tests"]);
        check("probe-core/src/lib.rs", &core, &[]);
        let engine = ["--package", "probe-core", "--test", "engine"];
        check("probe-core/tests/engine/http.rs", &engine, &["http"]);
        check("probe-core/tests/engine/main.rs", &engine, &[]);
        let defib = ["--package", "defib", "--bin", "defib"];
        check("src/cli/print/tests.rs", &defib, &["cli", "print", "tests"]);
        check("src/main.rs", &defib, &[]);
        let sensor = ["--package", "defib", "--test", "sensor"];
        check("tests/sensor.rs", &sensor, &[]);
        check("tests/sensor/kills.rs", &sensor, &["sensor", "kills"]);
    }

    #[test]
    fn support_and_documents_have_none() {
        for file in ["tests/support/agent.rs", "benches/peers/src/heap.rs", "docs/engine.md", "src/x.md"] {
            assert_eq!(place(file), None, "{file}");
        }
    }

    #[test]
    fn functions_are_found_under_macros_and_inline_modules() {
        let all = [
            "http::epoll::statuses",
            "http::uring::statuses",
            "httpx::uring::statuses",
            "http::uring::other",
            "wire::tests::ends",
            "wire::tests::deep::ends",
        ]
        .map(str::to_owned);
        let check = |modules: &[&str], function, expected: &[&str]| {
            let binary = Binary { package: "p", target: Target::Lib };
            let place = Place { binary, modules: modules.iter().map(|m| (*m).to_owned()).collect() };
            assert_eq!(place.tests_of(function, &all), expected, "{modules:?} {function}");
        };
        check(&["http"], "statuses", &["http::epoll::statuses", "http::uring::statuses"]);
        check(&["wire"], "ends", &["wire::tests::ends"]);
        check(&["wire", "tests", "deep"], "ends", &["wire::tests::deep::ends"]);
        check(&["http"], "gone", &[]);
        check(&["http", "uring", "other"], "other", &[]);
    }
}
