//! A box, from one pasted line to nothing left: a container with a real systemd, with the socket of the
//! engine of this machine as its own.

use std::time::Duration;

use http::Method;
use http::header::HOST;
use nimbus_tests::api::Api;
use nimbus_tests::gpu::{PATIENCE, Plane, gone, log, reaches, runs, submit};
use nimbus_tests::lab::docker;
use nimbus_tests::process::{binary, command, root};
use nimbus_tests::wait::{eventually, within};
use serde_json::json;

/// The box. Removed when dropped.
struct GpuBox {
    name: String,
}

impl GpuBox {
    /// Boots one that has an engine's socket and its command.
    async fn boot() -> Self {
        let made = Self {
            name: format!("nimbus-test-gpu-box-{}", std::process::id()),
        };
        let booted = command(root().join("ops/dev/systemd.sh"))
            .args(["start", &made.name])
            .args(["-v", "/var/run/docker.sock:/run/docker.sock"])
            .args(["-v", "/usr/bin/docker:/usr/bin/docker:ro"])
            .output()
            .await
            .unwrap();
        assert!(
            booted.status.success(),
            "{}",
            String::from_utf8_lossy(&booted.stderr)
        );
        let _ = made
            .runs("groupadd --gid $(stat -c %g /run/docker.sock) docker")
            .await;
        made
    }

    /// Runs a line of shell that must succeed.
    async fn runs(&self, line: &str) -> String {
        docker(&["exec", &self.name, "bash", "-c", line]).await
    }
}

impl Drop for GpuBox {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let journal = std::process::Command::new("docker")
                .args(["exec", &self.name, "journalctl", "--no-pager", "--lines", "40"])
                .output();
            if let Ok(journal) = journal {
                eprintln!(
                    "the end of the box' journal:\n{}",
                    String::from_utf8_lossy(&journal.stdout)
                );
            }
        }
        let _ = std::process::Command::new(root().join("ops/dev/systemd.sh"))
            .args(["stop", &self.name])
            .output();
    }
}

/// The address under which containers reach this machine.
async fn bridge() -> String {
    let format = "{{(index .IPAM.Config 0).Gateway}}";
    docker(&["network", "inspect", "bridge", "--format", format])
        .await
        .trim()
        .to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_pasted_line_makes_a_box_a_worker_and_one_takes_it_back() {
    let address = bridge().await;
    let plane = Plane::with("pairing", false, |settings| {
        // A server that others reach wants an admin token that somebody has put there.
        let rotated = std::process::Command::new(binary())
            .args(["auth", "rotate-admin"])
            .envs(
                settings
                    .iter()
                    .filter(|(name, _)| *name == "NIMBUS_ADMIN_TOKEN_FILE"),
            )
            .output()
            .unwrap();
        assert!(
            rotated.status.success(),
            "{}",
            String::from_utf8_lossy(&rotated.stderr)
        );
        settings
            .with("NIMBUS_HOST", "0.0.0.0")
            .with("NIMBUS_ALLOW_NETWORK", "true")
    })
    .await;
    let port = plane.server.url().rsplit(':').next().unwrap().to_owned();
    let refused = plane
        .admin
        .post("/api/settings/gpu/pairing", &json!({}))
        .await
        .is(412);
    assert_eq!(
        refused.code(),
        "gpu.pairing_unreachable",
        "a box cannot use a loopback address"
    );
    let request = plane
        .admin
        .request(Method::POST, "/api/settings/gpu/pairing")
        .header(HOST, format!("{address}:{port}"));
    let line = Api::send(request).await.is(200).data()["curl"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(
        line.starts_with("curl -fsSL \"http://") && line.ends_with("| sudo bash"),
        "{line}"
    );

    let host = GpuBox::boot().await;
    let files =
        "find /etc /opt /usr/local /var/lib -not -path '/var/lib/systemd/*' -not -path '/etc/*-' | sort";
    let before = host.runs(files).await;
    let pasted = line.replace("| sudo bash", "| bash");
    let pasted = format!("set -o pipefail; {pasted}");
    let said = within("the installer", Duration::from_secs(120), host.runs(&pasted)).await;
    assert!(said.contains("is paired with"), "{said}");

    let boxes = eventually(
        "the box is online",
        PATIENCE,
        async || plane.admin.get("/api/gpu/workers").await.is(200).data(),
        |boxes| boxes[0]["state"] == "online",
    )
    .await;
    assert_eq!(boxes[0]["id"], "node", "named like the machine");
    let settings = plane.admin.get("/api/settings/gpu").await.is(200).data();
    assert_eq!(settings["gx10_hostname"], "node");
    // Nobody but the worker reads its secrets, and they are on no command line.
    assert_eq!(
        host.runs("stat -c '%a %U' /etc/nimbus-gpu-worker.env")
            .await
            .trim(),
        "640 root"
    );
    let unit = "systemctl show -p User -p ActiveState --value nimbus-gpu-worker.service";
    assert_eq!(
        host.runs(unit).await.split_whitespace().collect::<Vec<_>>(),
        ["nimbus-worker", "active"]
    );
    let verified = host
        .runs("systemd-analyze verify /etc/systemd/system/nimbus-gpu-worker.service 2>&1 || true")
        .await;
    assert!(!verified.contains("nimbus-gpu-worker"), "{verified}");

    let id = submit(&plane.admin, "echo from the box").await;
    let _ = reaches(&plane.admin, &id, "succeeded").await;
    assert_eq!(log(&plane.admin, &id).await, b"from the box\n");

    // A restart of the service leaves the job alone.
    let long = submit(
        &plane.admin,
        "i=0; while [ $i -lt 40 ]; do echo $i; i=$((i+1)); sleep 0.25; done",
    )
    .await;
    let _ = runs(&plane.admin, &long).await;
    let _ = host.runs("systemctl restart nimbus-gpu-worker.service").await;
    let done = reaches(&plane.admin, &long, "succeeded").await;
    assert_eq!(done["attempt"], 1);
    let wanted: String = (0..40).map(|n| format!("{n}\n")).collect();
    assert_eq!(String::from_utf8(log(&plane.admin, &long).await).unwrap(), wanted);

    // The line is used up.
    let again = command("docker")
        .args(["exec", &host.name, "bash", "-c", &pasted])
        .output()
        .await
        .unwrap();
    assert!(!again.status.success());

    let last = submit(&plane.admin, "sleep 3600").await;
    let _ = runs(&plane.admin, &last).await;
    let request = plane
        .admin
        .request(Method::POST, "/api/settings/gpu/unpair")
        .header(HOST, format!("{address}:{port}"))
        .json(&json!({}));
    let unpaired = Api::send(request).await.is(200).data();
    assert_eq!(unpaired["cancelled_jobs"], 1);
    let cleanup = unpaired["cleanup_cmd"].as_str().unwrap();
    let _ = host
        .runs(&cleanup.replace("sudo bash", "bash -s -- --purge"))
        .await;
    gone(&last).await;
    let left = host
        .runs("systemctl list-unit-files 'nimbus-*' --no-legend; ls /etc/systemd/system | grep nimbus || true; getent passwd nimbus-worker || true")
        .await;
    assert_eq!(left.trim(), "", "nothing is left");
    assert_eq!(host.runs(files).await, before, "nothing is left");
    assert_eq!(
        plane.admin.get("/api/gpu/workers").await.is(200).data(),
        json!([]),
        "and the server knows no box"
    );
    plane.end(vec![], &[id, long, last]).await;
}
