//! What people run runs under the system-call filter, without capabilities and without a network.

use nimbus_engine::{Engine, Limits, Pull, PullPolicy};

use crate::world::{World, with_world};

/// Runs a script in one of the images of `ops/dev/engine.sh images`.
async fn says(world: &World, image: &str, limits: Limits, script: &str) -> (i64, String) {
    let reference = format!("nimbus.test/{image}:1").parse().expect("a reference");
    let local = Pull {
        policy: PullPolicy::Never,
        ..Pull::default()
    };
    let image = world
        .engine
        .ensure_image(&reference, &local)
        .await
        .unwrap_or_else(|e| panic!("this test needs {reference} (ops/dev/engine.sh images {image}): {e}"));
    let mut spec = world.command(&[]);
    spec.image = image.id;
    spec.limits = limits;
    spec.shm_bytes = Some(256 << 20);
    world.says(spec, script).await
}

const ROOM: Limits = Limits {
    millicpus: 2000,
    memory_bytes: 1 << 30,
    pids: 512,
    disk_bytes: None,
};

#[tokio::test]
async fn node_runs_with_threads_children_files_and_sockets() {
    with_world(|world| async move {
        let (code, said) = says(
            &world,
            "node",
            ROOM,
            r#"node -e '
const { Worker } = require("worker_threads"), net = require("net"), fs = require("fs"), { execFile } = require("child_process");
const worker = new Promise((done) => new Worker("require(\"worker_threads\").parentPort.postMessage(6 * 7)", { eval: true }).on("message", done));
const child = new Promise((done, fail) => execFile("/bin/echo", ["child"], (e, out) => e ? fail(e) : done(out.trim())));
const socket = new Promise((done) => { const s = net.createServer((c) => c.end("hello")).listen(0, "127.0.0.1", () => net.connect(s.address().port).on("data", (d) => { done(String(d)); s.close(); })); });
const file = fs.promises.writeFile("/tmp/f", "kept").then(() => fs.promises.readFile("/tmp/f", "utf8"));
Promise.all([worker, child, socket, file]).then((all) => { console.log(all.join(" ")); process.exit(0); });
'"#,
        )
        .await;
        assert_eq!((code, said.trim()), (0, "42 child hello kept"));
    })
    .await;
}

#[tokio::test]
async fn python_runs_and_the_calls_that_are_refused_say_so() {
    with_world(|world| async move {
        let (code, said) = says(
            &world,
            "python",
            ROOM,
            r#"python3 -c '
import concurrent.futures, ctypes, errno, os, platform, socket, subprocess, sys
with concurrent.futures.ThreadPoolExecutor() as pool: assert sum(pool.map(abs, range(10))) == 45
assert subprocess.run(["/bin/true"]).returncode == 0
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *rest):
    ctypes.set_errno(0)
    return errno.errorcode.get(ctypes.get_errno(), "none") if libc.syscall(number, *rest) == -1 else "allowed"
# From asm/unistd_64.h and asm-generic/unistd.h.
x86 = {"ptrace": 101, "keyctl": 250, "perf_event_open": 298, "process_vm_readv": 310, "bpf": 321, "userfaultfd": 323, "io_uring_setup": 425, "open_tree": 428, "fsopen": 430, "clone3": 435, "mount": 165, "unshare": 272, "setns": 308}
arm = {"ptrace": 117, "keyctl": 219, "perf_event_open": 241, "process_vm_readv": 270, "bpf": 280, "userfaultfd": 282, "io_uring_setup": 425, "open_tree": 428, "fsopen": 430, "clone3": 435, "mount": 40, "unshare": 97, "setns": 268}
for name, number in (x86 if platform.machine() == "x86_64" else arm).items():
    print(name, call(number, 0, 0, 0, 0, 0))
# AF_UNIX, AF_INET6, AF_NETLINK; AF_PACKET, AF_ALG, AF_VSOCK.
for family in (1, 10, 16, 17, 38, 40):
    try:
        socket.socket(family, socket.SOCK_RAW if family == 16 else socket.SOCK_STREAM).close()
        print("family", family, "allowed")
    except OSError as e:
        print("family", family, errno.errorcode[e.errno])
'"#,
        )
        .await;
        assert_eq!(code, 0, "{said}");
        let lines: Vec<&str> = said.lines().collect();
        assert_eq!(
            lines,
            [
                "ptrace EPERM",
                "keyctl EPERM",
                "perf_event_open EPERM",
                "process_vm_readv EPERM",
                "bpf EPERM",
                "userfaultfd EPERM",
                "io_uring_setup ENOSYS",
                "open_tree EPERM",
                "fsopen EPERM",
                "clone3 ENOSYS",
                "mount EPERM",
                "unshare EPERM",
                "setns EPERM",
                "family 1 allowed",
                "family 10 allowed",
                "family 16 allowed",
                "family 17 EPERM",
                "family 38 EPERM",
                "family 40 EPERM",
            ]
        );
    })
    .await;
}

/// `ops/dev/engine.sh images desktop`, then `cargo nextest run -p nimbus-engine --run-ignored all -E 'test(chromium)'`.
#[tokio::test]
#[ignore = "needs an image of 800 MB that takes minutes to make"]
async fn chromium_renders_a_page() {
    with_world(|world| async move {
        let (code, said) = says(
            &world,
            "desktop",
            ROOM,
            "cd /tmp && chromium --headless --no-sandbox --disable-gpu --disable-quic --no-first-run \
                --disable-background-networking --disable-component-update --disable-sync --disable-breakpad \
                --user-data-dir=/tmp/profile --screenshot=/tmp/page.png --window-size=640,480 \
                --dump-dom 'data:text/html,<p>?</p><script>document.querySelector(\"p\").textContent = 6 * 7</script>' &&
                ls -l /tmp/page.png",
        )
        .await;
        assert_eq!(code, 0, "{said}");
        assert!(said.contains("<p>42</p>") && said.contains("/tmp/page.png"), "{said}");
    })
    .await;
}
