//! What a loader sees of an eBPF object, and how two objects differ.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use anyhow::{Context, Result, ensure};
use object::{
    File, Object as _, ObjectSection as _, ObjectSymbol as _, SectionKind, SymbolKind, SymbolScope,
};

/// The programs and maps of an object. Two compilers give different instructions and type information for one source,
/// but the same shape.
#[derive(PartialEq, Eq, Debug, Default)]
pub struct Shape {
    sections: BTreeMap<String, Content>,
    symbols: BTreeMap<String, Symbol>,
}

/// What counts of a section.
#[derive(PartialEq, Eq, Debug)]
enum Content {
    /// Instructions: compilers differ.
    Programs,
    /// Read by the loader: map definitions, the licence.
    Exactly(Vec<u8>),
    /// Constants and variables: a compiler may fill them differently.
    Sized(u64),
}

/// A symbol that the loader can see.
#[derive(PartialEq, Eq, Debug)]
struct Symbol {
    kind: String,
    section: String,
    /// Offset and size of data: a map is known by its offset. None for programs, whose length is the compiler's.
    place: Option<(u64, u64)>,
}

impl Shape {
    pub fn read(object: &[u8]) -> Result<Shape> {
        let file = File::parse(object).context("no ELF file")?;
        let mut shape = Shape::default();
        let mut names = BTreeMap::new();
        for section in file.sections() {
            let name = section.name().context("a section has no name")?.to_owned();
            if let Some(content) = content_of(&section, &name)? {
                shape.sections.insert(name.clone(), content);
            }
            names.insert(section.index().0, name);
        }
        for symbol in file.symbols() {
            // What is hidden is the compiler's own: memcpy and its kin.
            if !symbol.is_global() || symbol.scope() != SymbolScope::Dynamic {
                continue;
            }
            let name = symbol.name().context("a symbol has no name")?.to_owned();
            let section =
                symbol.section_index().and_then(|index| names.get(&index.0)).cloned().unwrap_or_default();
            let place = (symbol.kind() != SymbolKind::Text).then(|| (symbol.address(), symbol.size()));
            let kind = format!("{:?}", symbol.kind()).to_lowercase();
            shape.symbols.insert(name, Symbol { kind, section, place });
        }
        ensure!(shape.programs() > 0, "no section has a program in it");
        Ok(shape)
    }

    fn programs(&self) -> usize {
        self.sections.values().filter(|content| **content == Content::Programs).count()
    }

    /// How `other` differs, one line each.
    pub fn differences(&self, other: &Shape) -> Vec<String> {
        let mut found = compare("section", &self.sections, &other.sections);
        found.extend(compare("symbol", &self.symbols, &other.symbols));
        found
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} sections with programs, {} symbols", self.programs(), self.symbols.len())
    }
}

impl fmt::Display for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Content::Programs => write!(f, "programs"),
            Content::Exactly(bytes) => write!(f, "\"{}\"", bytes.escape_ascii()),
            Content::Sized(size) => write!(f, "{size} bytes"),
        }
    }
}

impl fmt::Display for Symbol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {}", self.kind, self.section)?;
        match self.place {
            Some((offset, size)) => write!(f, " at {offset}, {size} bytes"),
            None => Ok(()),
        }
    }
}

/// None for sections that do not count. Names without a dot are agreed on with the loader.
fn content_of(section: &object::Section<'_, '_>, name: &str) -> Result<Option<Content>> {
    let for_loader = !name.starts_with('.') || name == ".maps";
    Ok(match section.kind() {
        // `.text` has what the programs call; a compiler may inline it all.
        SectionKind::Text => for_loader.then_some(Content::Programs),
        SectionKind::Data | SectionKind::ReadOnlyData if for_loader => {
            let bytes = section.data().with_context(|| format!("section {name} cannot be read"))?;
            Some(Content::Exactly(bytes.to_vec()))
        }
        SectionKind::Data | SectionKind::ReadOnlyData | SectionKind::UninitializedData => {
            Some(Content::Sized(section.size()))
        }
        // Symbols, relocations, type information: no compiler writes them like another.
        _ => None,
    })
}

fn compare<T: PartialEq + fmt::Display>(
    what: &str,
    committed: &BTreeMap<String, T>,
    built: &BTreeMap<String, T>,
) -> Vec<String> {
    let names: BTreeSet<&String> = committed.keys().chain(built.keys()).collect();
    let mut found = Vec::new();
    for name in names {
        match (committed.get(name), built.get(name)) {
            (Some(old), Some(new)) if old != new => {
                found.push(format!("{what} {name}: committed {old}, built {new}"));
            }
            (Some(old), None) => found.push(format!("{what} {name}: committed {old}, not built")),
            (None, Some(new)) => found.push(format!("{what} {name}: not committed, built {new}")),
            (Some(_), Some(_)) | (None, None) => {}
        }
    }
    found
}

/// Which sections of two objects have other bytes, for the error about objects that should be the same.
pub fn bytes_differ(committed: &[u8], built: &[u8]) -> Vec<String> {
    let found = match (all_sections(committed), all_sections(built)) {
        (Ok(committed), Ok(built)) => compare("section", &committed, &built),
        (Err(error), _) => vec![format!("committed: {error:#}")],
        (_, Err(error)) => vec![format!("built: {error:#}")],
    };
    if found.is_empty() { vec!["only headers and padding differ".to_owned()] } else { found }
}

/// Bytes that are too many to be printed.
#[derive(PartialEq)]
struct Hidden(Vec<u8>);

impl fmt::Display for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

fn all_sections(object: &[u8]) -> Result<BTreeMap<String, Hidden>> {
    let file = File::parse(object).context("no ELF file")?;
    let mut sections = BTreeMap::new();
    for section in file.sections() {
        let name = section.name().context("a section has no name")?.to_owned();
        let bytes = section.data().with_context(|| format!("section {name} cannot be read"))?;
        sections.insert(name, Hidden(bytes.to_vec()));
    }
    Ok(sections)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(sections: Vec<(&str, Content)>, symbols: Vec<(&str, Symbol)>) -> Shape {
        let sections = sections.into_iter().map(|(name, content)| (name.to_owned(), content)).collect();
        let symbols = symbols.into_iter().map(|(name, symbol)| (name.to_owned(), symbol)).collect();
        Shape { sections, symbols }
    }

    fn symbol(kind: &str, section: &str, place: Option<(u64, u64)>) -> Symbol {
        Symbol { kind: kind.to_owned(), section: section.to_owned(), place }
    }

    fn small() -> Shape {
        shape(
            vec![
                ("tp_btf/a", Content::Programs),
                ("license", Content::Exactly(b"GPL\0".to_vec())),
                (".rodata", Content::Sized(8)),
            ],
            vec![("a", symbol("text", "tp_btf/a", None)), ("M", symbol("data", "maps", Some((0, 28))))],
        )
    }

    fn check(change: impl FnOnce(&mut Shape), expected: &[&str]) {
        let mut other = small();
        change(&mut other);
        assert_eq!(small().differences(&other), expected);
    }

    #[test]
    fn the_same_shape_has_no_difference() {
        check(|_| {}, &[]);
    }

    #[test]
    fn each_difference_is_told() {
        check(
            |other| drop(other.sections.insert("license".to_owned(), Content::Exactly(b"MIT\0".to_vec()))),
            &[r#"section license: committed "GPL\x00", built "MIT\x00""#],
        );
        check(
            |other| drop(other.sections.insert(".rodata".to_owned(), Content::Sized(16))),
            &["section .rodata: committed 8 bytes, built 16 bytes"],
        );
        check(
            |other| drop(other.sections.remove("tp_btf/a")),
            &["section tp_btf/a: committed programs, not built"],
        );
        check(
            |other| drop(other.symbols.insert("M".to_owned(), symbol("data", "maps", Some((28, 28))))),
            &["symbol M: committed data in maps at 0, 28 bytes, built data in maps at 28, 28 bytes"],
        );
        check(
            |other| drop(other.symbols.insert("b".to_owned(), symbol("text", "tp_btf/a", None))),
            &["symbol b: not committed, built text in tp_btf/a"],
        );
    }

    #[test]
    fn what_is_no_object_is_refused() {
        assert!(Shape::read(b"").is_err());
        assert!(Shape::read(b"\x7fELF and nothing more").is_err());
        let found = bytes_differ(b"", b"");
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("committed: "), "{found:?}");
    }

    #[test]
    fn the_committed_object_has_a_shape() {
        let object: &[u8] = include_bytes!("../../../probe-ebpf/prebuilt/defib.bpf.o");
        let shape = Shape::read(object).unwrap();
        assert!(
            matches!(shape.sections.get("license"), Some(Content::Exactly(bytes)) if bytes.ends_with(b"GPL\0"))
        );
        assert!(!shape.sections.keys().any(|name| name.contains("BTF") || name == ".text"), "{shape:?}");
        let data = shape.symbols.values().filter(|symbol| symbol.place.is_some()).count();
        assert!(shape.programs() >= 1 && data > 1 && data < shape.symbols.len(), "{shape:?}");
        assert!(!shape.symbols.contains_key("memcpy"));
        assert!(shape.differences(&Shape::read(object).unwrap()).is_empty());
    }

    #[test]
    fn sections_with_other_bytes_are_named() {
        let object: &[u8] = include_bytes!("../../../probe-ebpf/prebuilt/defib.bpf.o");
        let mut other = object.to_vec();
        let at = object.windows(4).position(|bytes| bytes == b"GPL\0").unwrap();
        other[at] = b'g';
        assert_eq!(bytes_differ(object, &other), ["section license: committed 13 bytes, built 13 bytes"]);
        assert_eq!(bytes_differ(object, object), ["only headers and padding differ"]);
    }
}
