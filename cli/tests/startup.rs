//! What a node is refused by the machine is said before it listens: no panic, exit code 1, and what
//! to do.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::print_stdout, reason = "how a test came to fail is said there")]
#![expect(unsafe_code, reason = "a filter of system calls is installed")]

#[expect(dead_code, reason = "other tests ask for other things")]
mod kept;

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, Output};

use kept::{Cluster, Plan, limited, loggos};

const IO_URING_SETUP: i64 = libc::SYS_io_uring_setup;
const IO_URING_REGISTER: i64 = libc::SYS_io_uring_register;
const SCHED_SETAFFINITY: i64 = libc::SYS_sched_setaffinity;

/// Has a system call fail for the process that a command becomes, as a container's profile does.
fn forbid(command: &mut Command, call: i64, error: i32) {
    let call = u32::try_from(call).unwrap();
    let step = |code: u16, jt: u8, jf: u8, k: u32| libc::sock_filter { code, jt, jf, k };
    let error = libc::SECCOMP_RET_ERRNO | u32::try_from(error).unwrap();
    let mut steps = [
        step(0x20, 0, 0, 0),    // load the number of the call
        step(0x15, 0, 1, call), // if it is this one
        step(0x06, 0, 0, error),
        step(0x06, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let len = u16::try_from(steps.len()).unwrap();
    let install = move || {
        let filter = libc::sock_fprog { len, filter: steps.as_mut_ptr() };
        // SAFETY: it takes no pointers.
        let is_alone = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
        let mode = libc::SECCOMP_MODE_FILTER;
        // SAFETY: the filter and its steps live until the call returns.
        let is_set = unsafe { libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const filter) };
        if (is_alone, is_set) == (0, 0) { Ok(()) } else { Err(io::Error::last_os_error()) }
    };
    // SAFETY: two system calls; nothing is allocated, and no lock is taken.
    unsafe { command.pre_exec(install) };
}

fn one_node() -> Cluster {
    let kinds = ["gateway", "proposer", "acceptor", "replica"];
    let roles: Vec<String> = kinds.iter().map(|kind| format!("{kind} 0")).collect();
    let config = "[cluster]\nname = \"small\"\nf = 0\ndurability = \"sync\"\nquorums = \"majority\"\n\
                  proposers = 1\nproxy_leaders = 0\nreplicas = 1\n[limits]\nlog_segment_bytes = \"1MiB\"";
    Cluster::new(config, vec![Plan::new("all", &roles)], |_| None)
}

/// Runs a node that is to fail, and sees that it says why: once, and first.
fn fails(what: &str, mut command: Command, told: &[&str]) {
    let Output { status, stdout, stderr } = command.env("LOGGOS_LOG", "warn").output().unwrap();
    let said = String::from_utf8(stderr).unwrap();
    println!("{what}: {said}");
    assert_eq!(status.code(), Some(1), "{what}: {said}");
    assert!(stdout.is_empty(), "{what}: it says that it listens");
    assert_eq!(said.lines().count(), 1, "{what}: {said}");
    assert!(said.starts_with("loggos: node all cannot start at "), "{what}: {said}");
    for words in told {
        assert!(said.contains(words), "{what}: {said}");
    }
}

#[test]
fn a_node_that_is_refused_a_system_call_says_so_before_it_listens() {
    let cluster = one_node();
    let calls = [
        ("io_uring_setup", IO_URING_SETUP, libc::EPERM, "io_uring_disabled"),
        ("io_uring_setup", IO_URING_SETUP, libc::ENOSYS, "there is no io_uring"),
        ("io_uring_setup", IO_URING_SETUP, libc::ENOMEM, "LimitMEMLOCK="),
        ("io_uring_setup", IO_URING_SETUP, libc::EMFILE, "LimitNOFILE="),
        ("io_uring_register", IO_URING_REGISTER, libc::EPERM, "io_uring_register"),
        ("io_uring_register", IO_URING_REGISTER, libc::ENOSYS, "io_uring_register"),
        ("sched_setaffinity", SCHED_SETAFFINITY, libc::EINVAL, "no executor on core 0"),
        ("sched_setaffinity", SCHED_SETAFFINITY, libc::EPERM, "`taskset`"),
    ];
    for (name, call, error, told) in calls {
        let mut command = cluster.command("node", "all");
        forbid(&mut command, call, error);
        let error = io::Error::from_raw_os_error(error);
        fails(&format!("{name}: {error}"), command, &[told]);
    }
}

#[test]
fn a_node_that_is_short_of_something_says_so_before_it_listens() {
    let cluster = one_node();
    let limits = [
        ("-n 8", "`ulimit -Hn`"),
        ("-n 24", "`ulimit -Hn`"),
        ("-l 64", "`ulimit -l 512`"),
        ("-v 24000", "not enough memory"),
    ];
    for (limit, told) in limits {
        let node = cluster.command("node", "all");
        fails(limit, limited(limit, &node), &[told]);
    }
}

#[test]
fn a_node_on_a_core_that_is_not_there_says_so_before_it_listens() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("cluster.toml");
    let text = r#"
        [cluster]
        f = 0
        durability = "memory"
        quorums = "majority"
        proposers = 1
        proxy_leaders = 0
        replicas = 1
        [nodes.all]
        address = "127.0.0.1:7400"
        cpus = [255]
        roles = ["gateway 0", "proposer 0", "acceptor 0", "replica 0"]
    "#;
    std::fs::write(&config, text).unwrap();
    let mut command = loggos();
    command.args(["node", "--name", "all", "--config"]).arg(&config);
    fails("core 255", command, &["no executor on core 255", "`cpus`"]);
}
