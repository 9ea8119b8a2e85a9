//! `nimbus compose`, as a person uses it: up, a changed line, up again.

use std::process::Stdio;
use std::time::Duration;

use camino::Utf8Path;
use camino_tempfile::Utf8TempDir;
use nimbus_tests::lab::IMAGE;
use nimbus_tests::process::{binary, command};
use nimbus_tests::{Lab, eventually};
use serde_json::Value;

/// A folder with a Compose file, and the command line of the operator in it.
struct Project {
    url: String,
    token: String,
    dir: Utf8TempDir,
}

impl Project {
    /// A server, and a project whose commands have the operator's token.
    async fn start(name: &str) -> (Lab, Self) {
        let mut token_file = String::new();
        let lab = Lab::with("workloads", name, |settings| {
            settings
                .get("NIMBUS_ADMIN_TOKEN_FILE")
                .unwrap()
                .clone_into(&mut token_file);
            settings
        })
        .await;
        let token = match lab.server.operator_token().await {
            Some(token) => token,
            None => {
                let text = std::fs::read_to_string(token_file).unwrap();
                let file: Value = serde_json::from_str(&text).unwrap();
                file["token"].as_str().unwrap().to_owned()
            }
        };
        let project = Self {
            url: lab.server.url(),
            token,
            dir: camino_tempfile::tempdir().unwrap(),
        };
        (lab, project)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.dir.path().join(name), text).unwrap();
    }

    fn path(&self) -> &Utf8Path {
        self.dir.path()
    }

    async fn run(&self, args: &[&str]) -> (bool, String, String) {
        let ran = command(binary())
            .arg("compose")
            .args(args)
            .current_dir(self.path())
            .env("HOME", self.path())
            .env("NIMBUS_URL", &self.url)
            .env("NIMBUS_TOKEN", &self.token)
            .stdin(Stdio::null())
            .output()
            .await
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (ran.status.success(), text(&ran.stdout), text(&ran.stderr))
    }

    /// What it prints; it must succeed.
    async fn prints(&self, args: &[&str]) -> String {
        let (ok, out, err) = self.run(args).await;
        assert!(ok, "{args:?}: {out}{err}");
        out
    }

    /// The word and the sandbox that `up` tells of a service.
    async fn up(&self) -> impl Fn(&str) -> (String, String) + use<> {
        let said = self.prints(&["up", "-d"]).await;
        move |service: &str| {
            let line = said
                .lines()
                .find_map(|line| line.strip_prefix(service)?.strip_prefix(": "))
                .unwrap_or_else(|| panic!("{service} is not in {said}"));
            let (word, rest) = line.split_once(" (sandbox ").unwrap();
            let (sandbox, _) = rest.split_once(", ").unwrap();
            (word.to_owned(), sandbox.to_owned())
        }
    }

    async fn log_says(&self, service: &str, wanted: &str) {
        eventually(
            &format!("{service} says {wanted}"),
            Duration::from_secs(30),
            async || self.run(&["logs", service]).await.1,
            |said| said.lines().any(|line| line.contains(wanted)),
        )
        .await;
    }

    async fn inspect(&self, service: &str) -> Value {
        let text = self.prints(&["--output", "json", "inspect", service]).await;
        serde_json::from_str(&text).unwrap()
    }
}

/// Two services; what `web` says is a line of the file.
fn file(greeting: &str, grace: &str) -> String {
    format!(
        "services:
  db:
    image: {IMAGE}
    command: [sh, -c, 'echo db is up; exec sleep 600']
  web:
    image: {IMAGE}
    command: [sh, -c, 'trap \"echo $$GREETING ends; exit 0\" TERM; echo $$GREETING; while :; do sleep 1; done']
    environment:
      GREETING: {greeting}
    stop_grace_period: {grace}
    depends_on: [db]
"
    )
}

#[tokio::test]
async fn a_changed_line_replaces_what_it_changes_and_nothing_else() {
    let (lab, project) = Project::start("compose-up").await;
    project.write("compose.yaml", &file("one", "5s"));
    let first = project.up().await;
    assert_eq!(
        (first("db").0.as_str(), first("web").0.as_str()),
        ("started", "started")
    );
    project.log_says("web", "one").await;

    // Nothing has changed, and nothing is done.
    let same = project.up().await;
    for service in ["db", "web"] {
        assert_eq!(same(service), ("already_running".to_owned(), first(service).1));
    }

    project.write("compose.yaml", &file("two", "5s"));
    let changed = project.up().await;
    assert_eq!(changed("db"), ("already_running".to_owned(), first("db").1));
    assert_eq!(changed("web").0, "started");
    assert_ne!(changed("web").1, first("web").1, "a sandbox of its own");
    project.log_says("web", "two").await;
    let (_, listed, _) = project.run(&["ps"]).await;
    assert!(
        listed.contains(&changed("web").1) && !listed.contains(&first("web").1),
        "{listed}"
    );
    let web = project.inspect("web").await;
    assert_eq!(web["status"]["lifecycleState"], "ready", "{web:#}");

    // A line that others than the process read counts as well.
    project.write("compose.yaml", &file("two", "6s"));
    let again = project.up().await;
    assert_eq!(again("db").0, "already_running");
    assert_eq!(again("web").0, "started");
    assert_ne!(again("web").1, changed("web").1);

    // A file that cannot be used leaves everything as it is.
    project.write("compose.yaml", "services: { web: { imag: x } }\n");
    let (ok, _, err) = project.run(&["up", "-d"]).await;
    assert!(!ok && err.contains("the Compose file cannot be used"), "{err}");
    project.write("compose.yaml", &file("two", "6s"));
    assert_eq!(
        project.up().await("web"),
        ("already_running".to_owned(), again("web").1)
    );

    project.prints(&["down", "--remove"]).await;
    let (_, listed, _) = project.run(&["ps"]).await;
    assert!(listed.matches("absent").count() == 2, "{listed}");
    lab.end().await;
}

/// A service that says how it was told its secrets: from a file, a variable and the Compose file.
fn secrets() -> String {
    format!(
        "services:
  app:
    image: {IMAGE}
    command: [sh, -c, 'echo \"got $$FROM_FILE, $$FROM_ENV and $$FROM_TEXT; file $${{FROM_FILE_FILE:-none}}\"; exec sleep 600']
    environment:
      FROM_FILE_FILE: /run/secrets/file
      FROM_ENV_FILE: /run/secrets/elsewhere
      FROM_TEXT_FILE: /etc/text
    secrets:
      - file
      - {{ source: env, target: elsewhere }}
      - {{ source: text, target: /etc/text }}
      - unused
secrets:
  file: {{ file: ./file.txt }}
  env: {{ environment: THE_SECRET }}
  text: {{ content: 'of the file' }}
  unused: {{ file: ./not-there.txt }}
"
    )
}

#[tokio::test]
async fn secrets_are_kept_by_the_tenant_and_given_as_variables() {
    let (lab, project) = Project::start("compose-secrets").await;
    project.write("compose.yaml", &secrets());
    project.write(".env", "THE_SECRET=of the variables\n");
    // What cannot be read is told before anything is made.
    let (ok, _, err) = project.run(&["up", "-d"]).await;
    assert!(
        !ok && err.contains("could not read the secret file") && err.contains("file.txt"),
        "{err}"
    );
    let (_, listed, _) = project.run(&["ps"]).await;
    assert!(listed.contains("absent"), "{listed}");

    project.write("file.txt", "of a file\n");
    let (ok, out, err) = project.run(&["up", "-d"]).await;
    assert!(ok && out.contains("app: started"), "{out}{err}");
    assert!(
        err.contains("/run/secrets/unused is not there under Nimbus"),
        "{err}"
    );
    project
        .log_says(
            "app",
            "got of a file, of the variables and of the file; file none",
        )
        .await;
    // Nothing shows a value, and the definition names what it uses.
    let shown = project.inspect("app").await;
    let text = shown.to_string();
    assert!(
        !text.contains("of a file") && !text.contains("of the variables"),
        "{text}"
    );
    assert!(text.contains("_file\"") && text.contains("FROM_TEXT"), "{text}");

    let first = project.up().await;
    assert_eq!(first("app").0, "already_running");
    project.write("file.txt", "of another file\n");
    let changed = project.up().await;
    assert_eq!(changed("app").0, "started");
    project
        .log_says("app", "got of another file, of the variables")
        .await;

    let gone = project.prints(&["down", "--remove"]).await;
    assert_eq!(gone.matches(": removed").count(), 4, "{gone}");
    assert_eq!(
        project
            .prints(&["down", "--remove"])
            .await
            .matches(": removed")
            .count(),
        0
    );
    lab.end().await;
}
