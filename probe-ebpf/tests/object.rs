//! The committed object, without a kernel: what it has is what the host side and the documents say.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics with its line")]

use std::collections::BTreeSet;

use aya_obj::generated::bpf_map_type::{
    BPF_MAP_TYPE_HASH, BPF_MAP_TYPE_LRU_HASH, BPF_MAP_TYPE_PERCPU_ARRAY, BPF_MAP_TYPE_RINGBUF,
};
use aya_obj::{Object, ProgramSection};
use object::elf::{EM_BPF, SHF_EXECINSTR, STT_FUNC};
use object::read::elf::ElfFile64;
use object::{LittleEndian, Object as _, ObjectSection as _, ObjectSymbol as _, SectionFlags, SymbolFlags};
use probe_ebpf::OBJECT;
use probe_ebpf::abi::{
    CONFIG, CONTAINERS, CONTAINERS_MAX, COUNTS, Config, Counts, Death, ENDS_MAX, INITS, Init, MARK_VICTIM,
    MARKS, MARKS_MAX, Mark, PROCESS_EXIT, PROCESS_EXIT_COUNTED, RECORDS, RECORDS_BYTES,
};

/// `BPF_F_NO_PREALLOC` of `include/uapi/linux/bpf.h`.
const NO_PREALLOC: u32 = 1;
/// What stands for folders of the machine that has built the object. None of them exists anywhere.
const STAND_INS: [&str; 4] = ["/cargo.home/", "/crates.io/", "/defib.source/", "/rust.sysroot/"];
const EXIT_SECTION: &str = "tp_btf/sched_process_exit";
const MARK_SECTION: &str = "tracepoint/oom/mark_victim";

fn elf() -> ElfFile64<'static, LittleEndian> {
    ElfFile64::parse(OBJECT).unwrap()
}

fn section(name: &str) -> &'static [u8] {
    elf().section_by_name(name).unwrap_or_else(|| panic!("no section {name}")).data().unwrap()
}

#[test]
fn it_is_for_bpf() {
    assert_eq!(elf().elf_header().e_machine.get(LittleEndian), EM_BPF);
}

#[test]
fn tables_have_these_sizes() {
    let size = |bytes: usize| u32::try_from(bytes).unwrap();
    let (init, mark, counts) = (size(size_of::<Init>()), size(size_of::<Mark>()), size(size_of::<Counts>()));
    // Name, type, bytes of the key and of the value, entries, flags. ENDS is the programs' own: start time and pid.
    // That the two which the host writes take memory when it inserts is part of their soundness (kernel/src/exit.rs).
    let mut expected = [
        (RECORDS, BPF_MAP_TYPE_RINGBUF, 0, 0, RECORDS_BYTES, 0),
        (CONTAINERS, BPF_MAP_TYPE_HASH, 8, 8, CONTAINERS_MAX, NO_PREALLOC),
        (INITS, BPF_MAP_TYPE_HASH, 4, init, CONTAINERS_MAX, NO_PREALLOC),
        (MARKS, BPF_MAP_TYPE_LRU_HASH, 4, mark, MARKS_MAX, 0),
        ("ENDS", BPF_MAP_TYPE_LRU_HASH, 16, 1, ENDS_MAX, 0),
        (COUNTS, BPF_MAP_TYPE_PERCPU_ARRAY, 4, counts, 1, 0),
    ]
    .map(|(name, kind, key, value, entries, flags)| {
        (name.to_owned(), kind as u32, key, value, entries, flags)
    });
    expected.sort_unstable();
    let object = Object::parse(OBJECT).unwrap();
    let tables = object.maps.iter().filter(|(name, _)| !name.starts_with('.'));
    let mut found: Vec<_> = tables
        .map(|(name, map)| {
            let sizes = (map.key_size(), map.value_size(), map.max_entries());
            (name.clone(), map.map_type(), sizes.0, sizes.1, sizes.2, map.map_flags())
        })
        .collect();
    found.sort_unstable();
    assert_eq!(found, expected);
}

#[test]
fn ring_buffer_has_a_size_that_kernels_take() {
    // ringbuf_map_alloc of kernel/bpf/ringbuf.c; pages have up to 64 KiB.
    assert!(RECORDS_BYTES.is_power_of_two() && RECORDS_BYTES.is_multiple_of(64 * 1024));
    assert!(size_of::<Death>() < RECORDS_BYTES as usize);
}

#[test]
fn configuration_is_unknown() {
    let elf = elf();
    let symbol = elf.symbols().find(|symbol| symbol.name() == Ok(CONFIG)).unwrap();
    assert_eq!(symbol.size(), size_of::<Config>() as u64);
    let place = elf.section_by_index(symbol.section_index().unwrap()).unwrap();
    // Read-only for the programs: the kernel then takes the values as constants.
    assert_eq!(place.name(), Ok(".rodata"));
    // Every offset is ABSENT, and nothing is dropped.
    let mut unknown = vec![0xff; size_of::<Config>()];
    unknown[std::mem::offset_of!(Config, drop_percent)..].fill(0);
    let bytes = place.data_range(symbol.address(), symbol.size()).unwrap().unwrap();
    assert_eq!(bytes, unknown);
}

#[test]
fn programs_are_these() {
    let elf = elf();
    let mut code = BTreeSet::new();
    for section in elf.sections() {
        if matches!(section.flags(), SectionFlags::Elf { sh_flags } if sh_flags & u64::from(SHF_EXECINSTR) != 0)
        {
            code.insert(section.name().unwrap().to_owned());
        }
    }
    // Beside the programs only what they call. No kprobe: those hang on names that kernels change.
    assert_eq!(code, [".text", EXIT_SECTION, MARK_SECTION].map(str::to_owned).into());
    for (name, expected) in
        [(EXIT_SECTION, &[PROCESS_EXIT, PROCESS_EXIT_COUNTED][..]), (MARK_SECTION, &[MARK_VICTIM])]
    {
        let index = elf.section_by_name(name).unwrap().index();
        let functions: BTreeSet<&str> = elf
            .symbols()
            .filter(|symbol| symbol.section_index() == Some(index))
            .filter(|symbol| matches!(symbol.flags(), SymbolFlags::Elf { st_info, .. } if st_info & 0xf == STT_FUNC))
            .map(|symbol| symbol.name().unwrap())
            .collect();
        assert_eq!(functions, expected.iter().copied().collect(), "{name}");
    }
    let object = Object::parse(OBJECT).unwrap();
    let kind = |name: &str| &object.programs[name].section;
    assert_eq!(object.programs.len(), 3);
    assert!(matches!(kind(PROCESS_EXIT), ProgramSection::BtfTracePoint));
    assert!(matches!(kind(PROCESS_EXIT_COUNTED), ProgramSection::BtfTracePoint));
    assert!(matches!(kind(MARK_VICTIM), ProgramSection::TracePoint));
}

#[test]
fn names_fit_into_the_kernel() {
    // BPF_OBJ_NAME_LEN of include/uapi/linux/bpf.h, with the zero. Longer program names are cut there, maps' refused.
    for name in [RECORDS, CONTAINERS, INITS, MARKS, COUNTS, "ENDS"] {
        assert!(name.len() < 16, "{name}");
    }
}

#[test]
fn licence_is_one_that_the_kernel_knows() {
    // license_is_gpl_compatible of include/linux/license.h compares with whole strings.
    assert_eq!(section("license"), b"Dual MIT/GPL\0");
    assert_eq!(Object::parse(OBJECT).unwrap().license.to_bytes(), b"Dual MIT/GPL");
}

#[test]
fn there_is_type_information_and_no_dwarf() {
    let elf = elf();
    let names: Vec<&str> = elf.sections().map(|section| section.name().unwrap()).collect();
    assert!(names.contains(&".BTF") && names.contains(&".BTF.ext"), "{names:?}");
    let dwarf: Vec<&&str> = names.iter().filter(|name| name.contains("debug")).collect();
    assert!(dwarf.is_empty(), "{dwarf:?}");
}

/// The line information names sources. Names of the machine that has built it would make another object of each build.
#[test]
fn it_names_no_folder_of_a_machine() {
    let strings = OBJECT.split(|byte| *byte == 0).filter_map(|bytes| std::str::from_utf8(bytes).ok());
    let is_path = |text: &str| {
        let mut characters = text.chars();
        characters.next() == Some('/') && characters.next().is_some_and(|c| c.is_alphanumeric() || c == '.')
    };
    let paths: Vec<&str> = strings.filter(|text| is_path(text)).collect();
    assert!(!paths.is_empty(), "the line information is missing");
    let private: Vec<&&str> =
        paths.iter().filter(|path| !STAND_INS.iter().any(|name| path.starts_with(name))).collect();
    assert!(private.is_empty(), "build the object with `cargo xtask build-ebpf`: {private:?}");
}
