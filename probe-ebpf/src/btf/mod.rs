//! Reads the type information of the kernel (BTF, Documentation/bpf/btf.rst): where a member of a struct lies, and
//! how many arguments a tracepoint passes. rustc emits no relocations for fields, so both are looked up at load.
//!
//! A lookup reads through the types from the first on, half a millisecond at worst. A load makes a dozen of them, so
//! there is no index.

mod raw;

use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};

use thiserror::Error;

use raw::{HEADER_BYTES, Head, Kind, MAGIC, RECORD_BYTES, VERSION, sections, word};

/// Where the kernel shows its own types.
pub const KERNEL_BTF: &str = "/sys/kernel/btf/vmlinux";
/// The largest blob that is read. A kernel 6.18 with 127,000 types has 5.5 MB.
pub const BLOB_MAX_BYTES: usize = 64 * 1024 * 1024;
/// So many typedefs and qualifiers may lie between a name and its type: MAX_RESOLVE_DEPTH of kernel/bpf/btf.c.
const ALIASES_MAX: usize = 32;
/// So deep may anonymous structs and unions lie in each other.
const ANONYMOUS_DEPTH_MAX: usize = 16;
/// So many members does one lookup see, so that a blob of structs that hold each other ends it too.
const MEMBERS_MAX: usize = 1 << 18;
const MEMBER_BYTES: usize = 12;

/// Why a blob cannot be used. Offsets count from its first byte.
#[derive(Error, Debug)]
pub enum BtfError {
    #[error("{} does not exist: use a kernel 5.4 or newer that was built with CONFIG_DEBUG_INFO_BTF=y", .path.display())]
    Missing { path: PathBuf },
    #[error("cannot read {}: {source}", .path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("BTF is larger than {BLOB_MAX_BYTES} bytes")]
    TooLarge,
    #[error("BTF ends within its header: {length} bytes, at least {HEADER_BYTES} are needed")]
    ShortHeader { length: usize },
    #[error("not BTF: magic number {magic:#06x} at offset 0, expected {MAGIC:#06x}")]
    Magic { magic: u16 },
    #[error("BTF is big-endian: only little-endian is supported")]
    BigEndian,
    #[error("BTF has version {version} at offset 2: only {VERSION} is supported")]
    Version { version: u8 },
    #[error(
        "BTF says at offset 4 that its header has {length} bytes: between {HEADER_BYTES} and {available} are possible"
    )]
    HeaderLength { length: u32, available: usize },
    #[error(
        "the {section} section of BTF reaches from offset {start} to {end}: beyond the end at {available}"
    )]
    Section { section: &'static str, start: u64, end: u64, available: usize },
    #[error("the string section of BTF at offset {start} does not begin and end with NUL")]
    Strings { start: usize },
    #[error("type {id} of BTF at offset {at} needs {needed} bytes: the type section ends after {available}")]
    Truncated { id: usize, at: usize, needed: usize, available: usize },
    #[error("type {id} of BTF at offset {at} has the unknown kind {kind}")]
    UnknownKind { id: usize, at: usize, kind: u32 },
    #[error(
        "type {id} of BTF at offset {at} has its name at {name}: the string section has {available} bytes"
    )]
    Name { id: usize, at: usize, name: u32, available: usize },
}

/// A blob whose records lie within it. Ids and names inside of records are checked when a lookup meets them.
pub struct Btf {
    bytes: Vec<u8>,
    strings: Range<usize>,
    /// Where the record of a type begins. Id 0 is void and has none, so that of id 1 is the first.
    records: Vec<u32>,
}

impl Btf {
    /// The types of the running kernel.
    pub fn of_kernel() -> Result<Btf, BtfError> {
        Btf::of_file(Path::new(KERNEL_BTF))
    }

    fn of_file(path: &Path) -> Result<Btf, BtfError> {
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound => BtfError::Missing { path: path.to_owned() },
            _ => BtfError::Read { path: path.to_owned(), source },
        };
        let file = File::open(path).map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        let mut bytes = Vec::with_capacity(length.min(BLOB_MAX_BYTES as u64) as usize);
        file.take(BLOB_MAX_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
        Btf::parse(bytes)
    }

    /// Checks header, sections and records, and remembers where each record begins.
    pub fn parse(bytes: Vec<u8>) -> Result<Btf, BtfError> {
        let (types, strings) = sections(&bytes)?;
        let mut records = Vec::new();
        let mut at = types.start;
        // Ends, as every record has a length.
        while at < types.end {
            let id = records.len() + 1;
            let available = types.end - at;
            let truncated = |needed| BtfError::Truncated { id, at, needed, available };
            let head = Head::read(&bytes[..types.end], at).ok_or_else(|| truncated(RECORD_BYTES))?;
            let kind = head.kind().ok_or(BtfError::UnknownKind { id, at, kind: head.kind_number() })?;
            let needed = RECORD_BYTES + kind.rest_bytes(head.count());
            if needed > available {
                return Err(truncated(needed));
            }
            if head.name as usize >= strings.len() {
                return Err(BtfError::Name { id, at, name: head.name, available: strings.len() });
            }
            // Fits, as no blob is larger than BLOB_MAX_BYTES.
            records.push(at as u32);
            at += needed;
        }
        records.shrink_to_fit();
        Ok(Btf { bytes, strings, records })
    }

    /// Byte offset of a member in a struct, also of one that lies in anonymous structs or unions of it. None if there
    /// is no such member, or if it is a bitfield. Several structs may have the name, as types of several files meet
    /// in the kernel (aya issue 1727): the first that has the member counts.
    pub fn member_offset(&self, struct_name: &str, member: &str) -> Option<u32> {
        let mut budget = MEMBERS_MAX;
        let mut structs = self.named(Kind::Struct, struct_name);
        match structs.find_map(|outer| self.find_member(outer, member, &mut budget))? {
            Place::Byte(offset) => Some(offset),
            Place::Bits => None,
        }
    }

    /// How many arguments a BTF tracepoint passes to a program; None if this kernel has no such tracepoint.
    /// `btf_trace_<name>` points to a function, whose first parameter is the `void *__data` of the one that
    /// registered it (include/trace/bpf_probe.h).
    pub fn tracepoint_arguments(&self, name: &str) -> Option<usize> {
        self.named(Kind::Typedef, &format!("btf_trace_{name}")).find_map(|typedef| {
            let pointer = self.resolve(typedef.size_or_type).filter(|record| record.kind == Kind::Ptr)?;
            let function =
                self.resolve(pointer.size_or_type).filter(|record| record.kind == Kind::FuncProto)?;
            function.count.checked_sub(1)
        })
    }

    /// All types of a kind that have the name, in the order of their ids.
    fn named<'a>(&'a self, kind: Kind, name: &'a str) -> impl Iterator<Item = Record> + 'a {
        let records = self.records.iter().filter_map(|at| self.record_at(*at as usize));
        records.filter(move |record| record.kind == kind && self.is_named(record.name, name))
    }

    fn find_member(&self, outer: Record, name: &str, budget: &mut usize) -> Option<Place> {
        let mut pending = vec![(outer, 0_u64, 0_usize)];
        while let Some((holder, base_bits, depth)) = pending.pop() {
            for index in 0..holder.count {
                *budget = budget.checked_sub(1)?;
                let Some(member) = self.member(holder, index) else { break };
                let bits = base_bits + u64::from(member.bits);
                if self.is_named(member.name, name) {
                    return Some(self.place(member, bits));
                }
                if self.is_anonymous(member.name) && depth < ANONYMOUS_DEPTH_MAX {
                    let inner = self.resolve(member.type_id).filter(|record| record.kind.has_members());
                    pending.extend(inner.map(|record| (record, bits, depth + 1)));
                }
            }
        }
        None
    }

    fn place(&self, member: Member, bits: u64) -> Place {
        let is_bitfield =
            member.bitfield_bits != 0 || !bits.is_multiple_of(8) || self.is_narrow(member.type_id);
        match u32::try_from(bits / 8) {
            Ok(offset) if !is_bitfield => Place::Byte(offset),
            Ok(_) | Err(_) => Place::Bits,
        }
    }

    /// Without kind_flag, the size of a bitfield is that of its integer: one that does not fill its bytes.
    fn is_narrow(&self, type_id: u32) -> bool {
        let Some(integer) = self.resolve(type_id).filter(|record| record.kind == Kind::Int) else {
            return false;
        };
        let Some(encoding) = word(&self.bytes, integer.at + RECORD_BYTES) else { return false };
        let (bits, bit_offset) = (encoding & 0xff, (encoding >> 16) & 0xff);
        u64::from(bits) != u64::from(integer.size_or_type) * 8 || bit_offset != 0
    }

    fn member(&self, holder: Record, index: usize) -> Option<Member> {
        let at = holder.at + RECORD_BYTES + index * MEMBER_BYTES;
        let offset = word(&self.bytes, at + 8)?;
        let (bits, bitfield_bits) =
            if holder.has_kind_flag { (offset & 0x00ff_ffff, offset >> 24) } else { (offset, 0) };
        Some(Member {
            name: word(&self.bytes, at)?,
            type_id: word(&self.bytes, at + 4)?,
            bits,
            bitfield_bits,
        })
    }

    /// The type behind typedefs and qualifiers. None if an id names no type, or if the chain does not end.
    fn resolve(&self, type_id: u32) -> Option<Record> {
        let mut id = type_id;
        for _ in 0..ALIASES_MAX {
            let index = (id as usize).checked_sub(1)?;
            let record = self.record_at(*self.records.get(index)? as usize)?;
            if !record.kind.is_alias() {
                return Some(record);
            }
            id = record.size_or_type;
        }
        None
    }

    fn record_at(&self, at: usize) -> Option<Record> {
        let head = Head::read(&self.bytes, at)?;
        Some(Record {
            at,
            name: head.name,
            kind: head.kind()?,
            has_kind_flag: head.info >> 31 == 1,
            count: head.count(),
            size_or_type: head.size_or_type,
        })
    }

    /// Whether the string that begins there is the whole of `name`. Nothing is called by the empty name.
    fn is_named(&self, string: u32, name: &str) -> bool {
        let rest = self.string_from(string).strip_prefix(name.as_bytes());
        !name.is_empty() && rest.and_then(<[u8]>::first) == Some(&0)
    }

    fn is_anonymous(&self, string: u32) -> bool {
        self.string_from(string).first() == Some(&0)
    }

    /// From there to the end of the section; nothing for an offset outside of it.
    fn string_from(&self, string: u32) -> &[u8] {
        self.bytes[self.strings.clone()].get(string as usize..).unwrap_or_default()
    }
}

#[derive(Copy, Clone)]
struct Record {
    at: usize,
    name: u32,
    kind: Kind,
    /// In a struct or union: the upper byte of a member's offset is the size of a bitfield.
    has_kind_flag: bool,
    count: usize,
    size_or_type: u32,
}

#[derive(Copy, Clone)]
struct Member {
    name: u32,
    type_id: u32,
    bits: u32,
    /// 0: not a bitfield, or one that only its type shows.
    bitfield_bits: u32,
}

/// Where a member that was found lies.
enum Place {
    Byte(u32),
    Bits,
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &[u8] = include_bytes!("../../tests/data/small.btf");
    /// In the number of a kind: kind_flag is set.
    const FLAGGED: u32 = 0x80;
    const INT: u32 = 1;
    const PTR: u32 = 2;
    const STRUCT: u32 = 4;
    const TYPEDEF: u32 = 8;
    const CONST: u32 = 10;
    const FUNC_PROTO: u32 = 13;

    /// A blob under construction.
    struct Blob {
        types: Vec<u8>,
        strings: Vec<u8>,
    }

    impl Blob {
        fn new() -> Blob {
            Blob { types: Vec::new(), strings: vec![0] }
        }

        fn string(&mut self, text: &str) -> u32 {
            if text.is_empty() {
                return 0;
            }
            let at = self.strings.len() as u32;
            self.strings.extend(text.bytes().chain([0]));
            at
        }

        /// A record; the first has id 1. `rest`: the words behind its head.
        fn add(mut self, kind: u32, name: &str, count: u32, size_or_type: u32, rest: &[u32]) -> Blob {
            let head = [self.string(name), kind << 24 | count, size_or_type];
            self.types.extend(head.iter().chain(rest).flat_map(|word| word.to_le_bytes()));
            self
        }

        /// A struct, or what else has members: name, type and offset of each.
        fn add_members(mut self, kind: u32, name: &str, members: &[(&str, u32, u32)]) -> Blob {
            let rest: Vec<u32> =
                members.iter().flat_map(|(name, id, bits)| [self.string(name), *id, *bits]).collect();
            self.add(kind, name, members.len() as u32, 0, &rest)
        }

        /// The type section begins at 24.
        fn bytes(&self) -> Vec<u8> {
            let (types, strings) = (self.types.len() as u32, self.strings.len() as u32);
            let header = [0x0001_eb9f, HEADER_BYTES as u32, 0, types, types, strings];
            let header = header.iter().flat_map(|word| word.to_le_bytes());
            header.chain(self.types.iter().copied()).chain(self.strings.iter().copied()).collect()
        }

        fn parse(&self) -> Btf {
            Btf::parse(self.bytes()).unwrap()
        }
    }

    fn check_members(btf: &Btf, cases: &[(&str, &str, Option<u32>)]) {
        for (outer, member, expected) in cases {
            assert_eq!(btf.member_offset(outer, member), *expected, "{outer}.{member}");
        }
    }

    #[test]
    fn members_of_a_compiled_file_are_found() {
        let cases = [
            ("plain", "letter", Some(0)),
            ("plain", "number", Some(4)),
            ("plain", "row", Some(8)),
            ("plain", "pointer", Some(24)),
            ("plain", "callback", Some(32)),
            ("plain", "unknown", Some(40)),
            ("plain", "colour", Some(48)),
            ("plain", "wide", Some(56)),
            ("plain", "fraction", Some(64)),
            ("plain", "on", Some(72)),
            ("nested", "first", Some(0)),
            ("nested", "as_number", Some(4)),
            ("nested", "low", Some(4)),
            ("nested", "high", Some(5)),
            ("nested", "deepest", Some(8)),
            ("nested", "inside_const", Some(12)),
            ("nested", "named", Some(16)),
            ("nested", "hidden", None),
            ("nested", "last", Some(20)),
            ("bits", "whole", Some(0)),
            ("bits", "one", None),
            ("bits", "seven", None),
            ("bits", "aligned", None),
            ("bits", "after", Some(8)),
            ("bits", "two", None),
            ("bits", "behind", Some(16)),
            ("either", "letter", None),
            ("plain", "numbe", None),
            ("plain", "numbers", None),
            ("plain", "", None),
            ("", "deepest", None),
            ("absent", "number", None),
            ("u32", "number", None),
        ];
        check_members(&Btf::parse(SMALL.to_vec()).unwrap(), &cases);
    }

    #[test]
    fn arguments_of_tracepoints_are_counted_without_the_first() {
        let btf = Btf::parse(SMALL.to_vec()).unwrap();
        let cases = [("small_none", Some(0)), ("small_two", Some(2)), ("small_wrong", None), ("other", None)];
        for (name, expected) in cases {
            assert_eq!(btf.tracepoint_arguments(name), expected, "{name}");
        }
        // A function without any parameter is no tracepoint.
        let odd = Blob::new().add(FUNC_PROTO, "", 0, 0, &[]).add(PTR, "", 0, 1, &[]);
        assert_eq!(odd.add(TYPEDEF, "btf_trace_odd", 0, 2, &[]).parse().tracepoint_arguments("odd"), None);
    }

    #[test]
    fn the_first_struct_that_has_the_member_counts() {
        let blob = Blob::new()
            .add(INT, "int", 0, 4, &[32])
            .add_members(5, "twin", &[("union", 1, 0)])
            .add_members(STRUCT, "twin", &[("first", 1, 32), ("both", 1, 64)])
            .add_members(
                STRUCT | FLAGGED,
                "twin",
                &[("both", 1, 96), ("second", 1, 128), ("bits", 1, 4 << 24)],
            )
            .add_members(STRUCT, "twin", &[("bits", 1, 32)]);
        let expected = [("first", 4), ("both", 8), ("second", 16)];
        check_members(&blob.parse(), &expected.map(|(member, offset)| ("twin", member, Some(offset))));
        check_members(&blob.parse(), &[("twin", "bits", None), ("twin", "union", None)]);
    }

    #[test]
    fn bitfields_without_kind_flag_show_in_their_type_or_offset() {
        let blob = Blob::new()
            .add(INT, "int", 0, 4, &[32])
            .add(INT, "int", 0, 4, &[5])
            .add(INT, "int", 0, 4, &[2 << 16 | 32])
            .add(TYPEDEF, "alias", 0, 2, &[])
            .add_members(STRUCT, "s", &[("narrow", 2, 0), ("shifted", 3, 0), ("alias", 4, 0), ("odd", 1, 3)])
            .add_members(STRUCT, "s", &[("far", 1, 0x0800_0000)]);
        let bitfields = ["narrow", "shifted", "alias", "odd"];
        check_members(&blob.parse(), &bitfields.map(|member| ("s", member, None)));
        check_members(&blob.parse(), &[("s", "far", Some(0x0100_0000))]);
    }

    #[test]
    fn circles_and_ids_without_a_type_end() {
        // It holds itself 64 times: without a budget, 64^16 members would be seen.
        let members = [("", 1, 0); 64];
        let blob = Blob::new()
            .add_members(STRUCT, "self", &members)
            .add(TYPEDEF, "btf_trace_circle", 0, 3, &[])
            .add(CONST, "", 0, 2, &[])
            .add_members(
                STRUCT,
                "odd",
                &[("", 2, 0), ("", 99, 0), ("", 0, 0), ("void", 0, 8), ("far", 99, 16)],
            )
            .add(TYPEDEF, "btf_trace_far", 0, u32::MAX, &[]);
        let btf = blob.parse();
        check_members(&btf, &[("self", "x", None), ("odd", "void", Some(1)), ("odd", "far", Some(2))]);
        assert_eq!((btf.tracepoint_arguments("circle"), btf.tracepoint_arguments("far")), (None, None));
    }

    #[test]
    fn every_kind_is_walked() {
        // How many words follow the head, with two members, parameters or values where there are any.
        let words = [1, 0, 3, 6, 6, 4, 0, 0, 0, 0, 0, 0, 4, 1, 6, 0, 1, 0, 6];
        let mut blob = Blob::new();
        for (kind, words) in (1..).zip(words) {
            let count = if words > 3 { 2 } else { 0 };
            blob = blob.add(kind, "", count, 0, &vec![0; words]);
        }
        let btf = blob.add_members(STRUCT, "last", &[("member", 1, 8)]).parse();
        assert_eq!(btf.records.len(), 20);
        check_members(&btf, &[("last", "member", Some(1))]);
    }

    #[test]
    fn malformed_blobs_are_refused_with_the_place() {
        let good = Blob::new().add(PTR, "pointer", 0, 0, &[]);
        let check = |change: &dyn Fn(&mut Vec<u8>), part: &str| {
            let mut bytes = good.bytes();
            change(&mut bytes);
            let error = Btf::parse(bytes).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(error.contains(part), "`{error}` does not contain `{part}`");
        };
        check(&|bytes| bytes.truncate(23), "23 bytes");
        check(&|bytes| bytes[0] = 0, "0xeb00 at offset 0");
        check(&|bytes| bytes.swap(0, 1), "big-endian");
        check(&|bytes| bytes[2] = 2, "version 2 at offset 2");
        check(&|bytes| bytes[4] = 23, "23 bytes");
        check(&|bytes| bytes[5] = 1, "280 bytes");
        check(&|bytes| bytes[11] = 0xff, "type section");
        check(&|bytes| bytes[15] = 0xff, "type section");
        check(&|bytes| bytes[19] = 0xff, "string section");
        check(
            &|bytes| bytes[20] += 1,
            "string section of BTF reaches from offset 36 to 46: beyond the end at 45",
        );
        check(&|bytes| bytes[20] = 0, "string section of BTF at offset 36");
        check(&|bytes| bytes[36] = b'x', "string section of BTF at offset 36");
        check(&|bytes| bytes[44] = b'x', "string section of BTF at offset 36");
        check(
            &|bytes| bytes[12] -= 1,
            "type 1 of BTF at offset 24 needs 12 bytes: the type section ends after 11",
        );
        check(&|bytes| bytes[31] = 3, "type 1 of BTF at offset 24 needs 24 bytes");
        check(&|bytes| bytes[31] = 0, "unknown kind 0");
        check(&|bytes| bytes[31] = 20, "type 1 of BTF at offset 24 has the unknown kind 20");
        check(&|bytes| bytes[24] = 9, "type 1 of BTF at offset 24 has its name at 9");
        check(&|bytes| bytes.resize(BLOB_MAX_BYTES + 1, 0), "larger than");
    }

    #[test]
    fn a_longer_header_is_skipped() {
        let mut bytes = Blob::new().add_members(STRUCT, "s", &[("x", 0, 64)]).bytes();
        bytes.splice(24..24, [0xff; 8]);
        bytes[4] = 32;
        check_members(&Btf::parse(bytes).unwrap(), &[("s", "x", Some(8))]);
    }

    /// Looks everything up that the small blob has.
    fn exercise(btf: &Btf) {
        for outer in ["plain", "nested", "bits"] {
            for member in ["number", "deepest", "behind", "nothing"] {
                btf.member_offset(outer, member);
            }
        }
        btf.tracepoint_arguments("small_two");
    }

    #[test]
    fn damage_is_refused_or_harmless() {
        for length in 0..SMALL.len() {
            assert!(Btf::parse(SMALL[..length].to_vec()).is_err(), "{length} bytes");
        }
        for at in 0..SMALL.len() {
            for mask in [1, 2, 4, 8, 16, 32, 64, 128, 255] {
                let mut bytes = SMALL.to_vec();
                bytes[at] ^= mask;
                if let Ok(btf) = Btf::parse(bytes) {
                    exercise(&btf);
                }
            }
        }
    }

    #[test]
    fn a_missing_file_is_named_with_the_cure() {
        let error = Btf::of_file(Path::new("tests/data/missing.btf")).err().unwrap().to_string();
        assert!(
            error.contains("tests/data/missing.btf") && error.contains("CONFIG_DEBUG_INFO_BTF"),
            "{error}"
        );
        assert!(matches!(Btf::of_file(Path::new("tests/data")), Err(BtfError::Read { .. })));
        assert!(Btf::of_file(Path::new("tests/data/small.btf")).is_ok());
    }

    #[test]
    fn the_running_kernel_has_what_the_sensor_reads() {
        if !Path::new(KERNEL_BTF).exists() {
            return;
        }
        let btf = Btf::of_kernel().unwrap();
        let structs: [(&str, &[&str]); 2] = [
            ("task_struct", &["exit_code", "tgid", "signal", "group_leader"]),
            ("signal_struct", &["flags", "group_exit_code", "live"]),
        ];
        for (outer, members) in structs {
            let offsets: Vec<u32> =
                members.iter().filter_map(|name| btf.member_offset(outer, name)).collect();
            let different: std::collections::BTreeSet<&u32> = offsets.iter().collect();
            assert_eq!(different.len(), members.len(), "{outer}: {offsets:?}");
        }
        assert!(matches!(btf.tracepoint_arguments("sched_process_exit"), Some(1 | 2)));
    }
}
