//! The system calls that a sandbox may make.
//!
//! An allow list for processes without capabilities, in the JSON format that OCI engines share. It is
//! what the common default profile of container engines leaves to such a process, minus
//!
//! - `io_uring_*`: a second way into most of the kernel, past filters, and a steady source of escapes;
//! - `ptrace`, `process_vm_*`: nothing here debugs its neighbour;
//! - socket families but Unix, IP and netlink: the rest is rarely used kernel code that a sandbox
//!   without a network could still load and poke at;
//! - 32-bit system calls: a second table, whose `socketcall` hides its arguments from filters.
//!
//! What needs a capability (`mount` and its family, `bpf`, `perf_event_open`, `setns`, …) or was never
//! in the default (`keyctl`, `userfaultfd`) is not listed, hence refused. `docs/decisions/0011` tells
//! what was tried.

use serde_json::{Value, json};

/// Answer to a refused call.
const EPERM: u32 = 1;
/// Answer to calls that libraries try and do without: they fall back on "there is no such call" only.
const ENOSYS: u32 = 38;

/// Flags of `clone` that make namespaces: cgroup, uts, ipc, user, pid, net, mount, in this order.
const NAMESPACES: u64 =
    0x0200_0000 | 0x0400_0000 | 0x0800_0000 | 0x1000_0000 | 0x2000_0000 | 0x4000_0000 | 0x0002_0000;

/// Unix, IPv4, IPv6, netlink (which lists the interfaces).
const FAMILIES: [u32; 4] = [1, 2, 10, 16];

/// The personalities that only change what `uname` and `/proc` say, and asking for the present one.
const PERSONALITIES: [u32; 5] = [0, 0x0008, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// Calls that exist and are answered as if they did not.
const ABSENT: &[&str] = &["clone3", "io_uring_enter", "io_uring_register", "io_uring_setup"];

const FILES: &[&str] = &[
    "access",
    "cachestat",
    "chdir",
    "chmod",
    "chown",
    "close",
    "close_range",
    "copy_file_range",
    "creat",
    "dup",
    "dup2",
    "dup3",
    "faccessat",
    "faccessat2",
    "fadvise64",
    "fallocate",
    "fchdir",
    "fchmod",
    "fchmodat",
    "fchmodat2",
    "fchown",
    "fchownat",
    "fcntl",
    "fdatasync",
    "fgetxattr",
    "flistxattr",
    "flock",
    "fremovexattr",
    "fsetxattr",
    "fstat",
    "fstatfs",
    "fsync",
    "ftruncate",
    "futimesat",
    "getcwd",
    "getdents",
    "getdents64",
    "getxattr",
    "getxattrat",
    "inotify_add_watch",
    "inotify_init",
    "inotify_init1",
    "inotify_rm_watch",
    "ioctl",
    "lchown",
    "lgetxattr",
    "link",
    "linkat",
    "listxattr",
    "listxattrat",
    "llistxattr",
    "lremovexattr",
    "lseek",
    "lsetxattr",
    "lstat",
    "mkdir",
    "mkdirat",
    "mknod",
    "mknodat",
    "newfstatat",
    "open",
    "openat",
    "openat2",
    "pread64",
    "preadv",
    "preadv2",
    "pwrite64",
    "pwritev",
    "pwritev2",
    "read",
    "readahead",
    "readlink",
    "readlinkat",
    "readv",
    "removexattr",
    "removexattrat",
    "rename",
    "renameat",
    "renameat2",
    "rmdir",
    "setxattr",
    "setxattrat",
    "stat",
    "statfs",
    "statx",
    "symlink",
    "symlinkat",
    "sync",
    "sync_file_range",
    "syncfs",
    "truncate",
    "umask",
    "unlink",
    "unlinkat",
    "utime",
    "utimensat",
    "utimes",
    "write",
    "writev",
];

const WAITING: &[&str] = &[
    "epoll_create",
    "epoll_create1",
    "epoll_ctl",
    "epoll_ctl_old",
    "epoll_pwait",
    "epoll_pwait2",
    "epoll_wait",
    "epoll_wait_old",
    "eventfd",
    "eventfd2",
    "io_cancel",
    "io_destroy",
    "io_getevents",
    "io_pgetevents",
    "io_setup",
    "io_submit",
    "pipe",
    "pipe2",
    "poll",
    "ppoll",
    "pselect6",
    "select",
    "sendfile",
    "signalfd",
    "signalfd4",
    "splice",
    "tee",
    "timerfd_create",
    "timerfd_gettime",
    "timerfd_settime",
    "vmsplice",
];

const MEMORY: &[&str] = &[
    "brk",
    "madvise",
    "map_shadow_stack",
    "membarrier",
    "memfd_create",
    "mincore",
    "mlock",
    "mlock2",
    "mlockall",
    "mmap",
    "mprotect",
    "mremap",
    "mseal",
    "msync",
    "munlock",
    "munlockall",
    "munmap",
    "pkey_alloc",
    "pkey_free",
    "pkey_mprotect",
    "shmat",
    "shmctl",
    "shmdt",
    "shmget",
];

const PROCESSES: &[&str] = &[
    "capget",
    "capset",
    "execve",
    "execveat",
    "exit",
    "exit_group",
    "fork",
    "get_robust_list",
    "getcpu",
    "getegid",
    "geteuid",
    "getgid",
    "getgroups",
    "getpgid",
    "getpgrp",
    "getpid",
    "getppid",
    "getpriority",
    "getresgid",
    "getresuid",
    "getrlimit",
    "getrusage",
    "getsid",
    "gettid",
    "getuid",
    "ioprio_get",
    "ioprio_set",
    "kill",
    "landlock_add_rule",
    "landlock_create_ruleset",
    "landlock_restrict_self",
    "pause",
    "pidfd_open",
    "pidfd_send_signal",
    "prctl",
    "prlimit64",
    "process_mrelease",
    "restart_syscall",
    "rseq",
    "rt_sigaction",
    "rt_sigpending",
    "rt_sigprocmask",
    "rt_sigqueueinfo",
    "rt_sigreturn",
    "rt_sigsuspend",
    "rt_sigtimedwait",
    "rt_tgsigqueueinfo",
    "sched_get_priority_max",
    "sched_get_priority_min",
    "sched_getaffinity",
    "sched_getattr",
    "sched_getparam",
    "sched_getscheduler",
    "sched_rr_get_interval",
    "sched_setaffinity",
    "sched_setattr",
    "sched_setparam",
    "sched_setscheduler",
    "sched_yield",
    "seccomp",
    "set_robust_list",
    "set_tid_address",
    "setfsgid",
    "setfsuid",
    "setgid",
    "setgroups",
    "setpgid",
    "setpriority",
    "setregid",
    "setresgid",
    "setresuid",
    "setreuid",
    "setrlimit",
    "setsid",
    "setuid",
    "sigaltstack",
    "tgkill",
    "tkill",
    "uretprobe",
    "vfork",
    "wait4",
    "waitid",
];

const TALKING: &[&str] = &[
    "accept",
    "accept4",
    "bind",
    "connect",
    "futex",
    "futex_requeue",
    "futex_wait",
    "futex_waitv",
    "futex_wake",
    "getpeername",
    "getsockname",
    "getsockopt",
    "listen",
    "mq_getsetattr",
    "mq_notify",
    "mq_open",
    "mq_timedreceive",
    "mq_timedsend",
    "mq_unlink",
    "msgctl",
    "msgget",
    "msgrcv",
    "msgsnd",
    "recvfrom",
    "recvmmsg",
    "recvmsg",
    "semctl",
    "semget",
    "semop",
    "semtimedop",
    "sendmmsg",
    "sendmsg",
    "sendto",
    "setsockopt",
    "shutdown",
    "socketpair",
];

const TIME_AND_SYSTEM: &[&str] = &[
    "adjtimex",
    "alarm",
    "clock_adjtime",
    "clock_getres",
    "clock_gettime",
    "clock_nanosleep",
    "getitimer",
    "getrandom",
    "gettimeofday",
    "nanosleep",
    "setitimer",
    "sysinfo",
    "time",
    "timer_create",
    "timer_delete",
    "timer_getoverrun",
    "timer_gettime",
    "timer_settime",
    "times",
    "uname",
];

/// Calls that only one architecture has.
const X86_64: &[&str] = &["arch_prctl", "get_thread_area", "modify_ldt", "set_thread_area"];

/// The profile for this machine's architecture, as the JSON that engines take.
#[must_use]
pub fn profile() -> Value {
    profile_of(std::env::consts::ARCH)
}

fn profile_of(arch: &str) -> Value {
    // No 32-bit companions: a call through them kills the process.
    let architecture = match arch {
        "x86_64" => "SCMP_ARCH_X86_64",
        "aarch64" => "SCMP_ARCH_AARCH64",
        "riscv64" => "SCMP_ARCH_RISCV64",
        "s390x" => "SCMP_ARCH_S390X",
        other => other,
    };
    let mut allowed: Vec<&str> = [FILES, WAITING, MEMORY, PROCESSES, TALKING, TIME_AND_SYSTEM].concat();
    match arch {
        "x86_64" => allowed.extend(X86_64),
        "riscv64" => allowed.extend(["riscv_flush_icache", "riscv_hwprobe"]),
        "s390x" => allowed.extend(["s390_guarded_storage", "s390_runtime_instr", "s390_sthyi"]),
        _ => {}
    }
    let mut rules = vec![
        json!({"names": allowed, "action": "SCMP_ACT_ALLOW"}),
        json!({"names": ABSENT, "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS}),
        json!({
            "names": ["clone"], "action": "SCMP_ACT_ALLOW",
            // On s390x the flags are the second argument.
            "args": [{"index": u32::from(arch == "s390x"), "value": NAMESPACES, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}],
        }),
    ];
    let only = |name: &str, value: u32| json!({"names": [name], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": value, "op": "SCMP_CMP_EQ"}]});
    // One rule each: comparisons of one argument within a rule would all have to hold.
    rules.extend(FAMILIES.iter().map(|family| only("socket", *family)));
    rules.extend(PERSONALITIES.iter().map(|value| only("personality", *value)));
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": EPERM,
        "architectures": [architecture],
        "syscalls": rules,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn unconditional(profile: &Value) -> Vec<&str> {
        profile["syscalls"]
            .as_array()
            .expect("a list")
            .iter()
            .filter(|rule| rule["action"] == "SCMP_ACT_ALLOW" && rule.get("args").is_none())
            .flat_map(|rule| rule["names"].as_array().expect("a list"))
            .map(|name| name.as_str().expect("a text"))
            .collect()
    }

    #[test]
    fn what_the_kernel_is_attacked_through_is_not_allowed() {
        for arch in ["x86_64", "aarch64", "riscv64", "s390x"] {
            let profile = profile_of(arch);
            let allowed: BTreeSet<&str> = unconditional(&profile).into_iter().collect();
            for name in [
                "add_key",
                "bpf",
                "chroot",
                "clone",
                "clone3",
                "delete_module",
                "fanotify_init",
                "finit_module",
                "fsconfig",
                "fsmount",
                "fsopen",
                "fspick",
                "init_module",
                "io_uring_enter",
                "io_uring_register",
                "io_uring_setup",
                "kcmp",
                "kexec_file_load",
                "kexec_load",
                "keyctl",
                "mbind",
                "mount",
                "mount_setattr",
                "move_mount",
                "move_pages",
                "name_to_handle_at",
                "open_by_handle_at",
                "open_tree",
                "perf_event_open",
                "personality",
                "pidfd_getfd",
                "pivot_root",
                "process_madvise",
                "process_vm_readv",
                "process_vm_writev",
                "ptrace",
                "quotactl",
                "reboot",
                "request_key",
                "setdomainname",
                "sethostname",
                "setns",
                "settimeofday",
                "socket",
                "socketcall",
                "swapon",
                "syslog",
                "umount",
                "umount2",
                "unshare",
                "userfaultfd",
                "vhangup",
            ] {
                assert!(!allowed.contains(name), "{name} is allowed on {arch}");
            }
            assert_eq!(profile["defaultAction"], "SCMP_ACT_ERRNO");
            assert_eq!(profile["architectures"].as_array().map(Vec::len), Some(1));
        }
    }

    #[test]
    fn every_name_stands_once() {
        let profile = profile_of("x86_64");
        let names = unconditional(&profile);
        assert_eq!(names.len(), names.iter().collect::<BTreeSet<_>>().len());
    }

    #[test]
    fn namespaces_are_the_flags_of_clone() {
        assert_eq!(NAMESPACES, 0x7e02_0000);
    }
}
