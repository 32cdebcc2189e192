//! Deaths of registered containers, told from inside the kernel. Tables in `maps.rs`, ends of processes in `exit.rs`,
//! kills for memory in `oom.rs`; what both sides agree on in `abi.rs` of the host crate.
//!
//! Kernel floor 5.8: ring buffer (5.8), `bpf_ktime_get_boot_ns` (5.8), BTF tracepoints (5.5), ancestor cgroup ids
//! (5.6), bounded loops (5.3). No kprobes.
#![no_std]
#![feature(core_intrinsics)]
#![expect(internal_features, reason = "an atomic addition has no other name here, see maps.rs")]
#![no_main]

#[path = "../../src/abi.rs"]
#[expect(dead_code, reason = "names and sizes that only the host looks up")]
mod abi;
mod exit;
mod maps;
mod oom;

/// Part of the kernel checks the licence; the helpers that are used here ask for one that it accepts.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier refuses a program that could come here: it would never end.
    loop {}
}
