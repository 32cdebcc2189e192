//! The bytes of BTF: header, sections, and the head of a type's record.

use std::ops::Range;

use super::{BLOB_MAX_BYTES, BtfError};

pub(super) const MAGIC: u16 = 0xeb9f;
pub(super) const VERSION: u8 = 1;
/// The header without the layout fields of Linux 7.1, which nothing here needs.
pub(super) const HEADER_BYTES: usize = 24;
pub(super) const RECORD_BYTES: usize = 12;

/// The type and the string section, both within the blob.
pub(super) fn sections(bytes: &[u8]) -> Result<(Range<usize>, Range<usize>), BtfError> {
    if bytes.len() > BLOB_MAX_BYTES {
        return Err(BtfError::TooLarge);
    }
    let short = BtfError::ShortHeader { length: bytes.len() };
    let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else { return Err(short) };
    let magic = u16::from_le_bytes([header[0], header[1]]);
    if magic == MAGIC.swap_bytes() {
        return Err(BtfError::BigEndian);
    }
    if magic != MAGIC {
        return Err(BtfError::Magic { magic });
    }
    if header[2] != VERSION {
        return Err(BtfError::Version { version: header[2] });
    }
    let field = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let length = field(4);
    if (length as usize) < HEADER_BYTES || length as usize > bytes.len() {
        return Err(BtfError::HeaderLength { length, available: bytes.len() });
    }
    // Offsets of sections count from the end of the header.
    let section = |section, offset, size| {
        let start = u64::from(length) + u64::from(offset);
        let end = start + u64::from(size);
        if end > bytes.len() as u64 {
            return Err(BtfError::Section { section, start, end, available: bytes.len() });
        }
        Ok(start as usize..end as usize)
    };
    let types = section("type", field(8), field(12))?;
    let strings = section("string", field(16), field(20))?;
    let text = &bytes[strings.clone()];
    if text.first() != Some(&0) || text.last() != Some(&0) {
        return Err(BtfError::Strings { start: strings.start });
    }
    Ok((types, strings))
}

pub(super) fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|chunk| u32::from_le_bytes(*chunk))
}

/// `struct btf_type` of include/uapi/linux/btf.h.
pub(super) struct Head {
    pub(super) name: u32,
    pub(super) info: u32,
    pub(super) size_or_type: u32,
}

impl Head {
    pub(super) fn read(bytes: &[u8], at: usize) -> Option<Head> {
        Some(Head { name: word(bytes, at)?, info: word(bytes, at + 4)?, size_or_type: word(bytes, at + 8)? })
    }

    /// Seven bits; five before Linux 7.1, where the other two are zero.
    pub(super) fn kind_number(&self) -> u32 {
        (self.info >> 24) & 0x7f
    }

    pub(super) fn kind(&self) -> Option<Kind> {
        KINDS.get((self.kind_number() as usize).checked_sub(1)?).copied()
    }

    /// Number of members, parameters or values: 24 bits; 16 before Linux 7.1, where the other eight are zero.
    pub(super) fn count(&self) -> usize {
        (self.info & 0x00ff_ffff) as usize
    }
}

#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Int,
    Ptr,
    Array,
    Struct,
    Union,
    Enum,
    Fwd,
    Typedef,
    Volatile,
    Const,
    Restrict,
    Func,
    FuncProto,
    Var,
    DataSec,
    Float,
    DeclTag,
    TypeTag,
    Enum64,
}

/// By number: BTF_KIND_INT is 1.
const KINDS: [Kind; 19] = [
    Kind::Int,
    Kind::Ptr,
    Kind::Array,
    Kind::Struct,
    Kind::Union,
    Kind::Enum,
    Kind::Fwd,
    Kind::Typedef,
    Kind::Volatile,
    Kind::Const,
    Kind::Restrict,
    Kind::Func,
    Kind::FuncProto,
    Kind::Var,
    Kind::DataSec,
    Kind::Float,
    Kind::DeclTag,
    Kind::TypeTag,
    Kind::Enum64,
];

impl Kind {
    /// What follows the head of a record, for `count` members.
    pub(super) fn rest_bytes(self, count: usize) -> usize {
        match self {
            Kind::Ptr | Kind::Fwd | Kind::Typedef | Kind::Volatile | Kind::Const | Kind::Restrict => 0,
            Kind::Func | Kind::Float | Kind::TypeTag => 0,
            Kind::Int | Kind::Var | Kind::DeclTag => 4,
            Kind::Array => 12,
            Kind::Enum | Kind::FuncProto => count * 8,
            Kind::Struct | Kind::Union | Kind::DataSec | Kind::Enum64 => count * 12,
        }
    }

    /// Names or qualifies another type without changing its layout.
    pub(super) fn is_alias(self) -> bool {
        matches!(self, Kind::Typedef | Kind::Volatile | Kind::Const | Kind::Restrict | Kind::TypeTag)
    }

    pub(super) fn has_members(self) -> bool {
        matches!(self, Kind::Struct | Kind::Union)
    }
}
