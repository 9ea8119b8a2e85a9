//! Requests of the client and answers of the simulator against a schema of the PVE API.
//!
//! The schema is not part of this repository. `NIMBUS_PVE_SCHEMA` names a JSON file of the form
//! `{"endpoints": {"GET /nodes": {"params": {name: P}, "returns": P}}, "enums": {name: […]}}` with
//! `P = {type, required, enum, min, max, maxLength, items, properties}`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use nimbus_proxmox::{ConfigPatch, DownloadSpec, PowerOp, TaskFilter, encode_sshkeys};
use nimbus_pve_sim::{Exchange, ForeignGuest, RunningSim, served_calls};
use serde_json::{Map, Value};

use crate::support::*;

struct Schema(Value);

impl Schema {
    fn load() -> Option<Self> {
        let path = std::env::var_os("NIMBUS_PVE_SCHEMA").filter(|path| !path.is_empty())?;
        let text = std::fs::read(&path).unwrap_or_else(|e| panic!("cannot read {}: {e}", path.display()));
        Some(Self(serde_json::from_slice(&text).expect("the schema is JSON")))
    }

    fn call(&self, method: &str, template: &str) -> Option<&Value> {
        self.0["endpoints"].get(format!("{method} {template}"))
    }

    /// The rule of a parameter, also of one of a family.
    fn parameter<'a>(&self, call: &'a Value, name: &str) -> Option<&'a Value> {
        let family = format!("{}[n]", name.trim_end_matches(|c: char| c.is_ascii_digit()));
        call["params"].get(name).or_else(|| call["params"].get(&family))
    }

    fn request(&self, seen: &Exchange) -> Vec<String> {
        let call = self.call(seen.method, seen.template).expect("looked up before");
        let given = seen.params.as_object().unwrap();
        let mut wrong = Vec::new();
        for (name, value) in given {
            match self.parameter(call, name) {
                None => wrong.push(format!("parameter {name} is unknown")),
                Some(rule) => self.text(name, value, rule, &mut wrong),
            }
        }
        for (name, rule) in call["params"].as_object().into_iter().flatten() {
            if rule["required"] == true && !given.contains_key(name) {
                wrong.push(format!("parameter {name} is missing"));
            }
        }
        wrong
    }

    /// A parameter arrives as text.
    fn text(&self, name: &str, value: &Value, rule: &Value, wrong: &mut Vec<String>) {
        let texts: Vec<&str> = match value {
            Value::Array(items) => items.iter().filter_map(Value::as_str).collect(),
            other => other.as_str().into_iter().collect(),
        };
        for text in texts {
            let good = match rule["type"].as_str() {
                Some("integer") => text.parse::<i64>().is_ok_and(|n| {
                    rule["min"].as_i64().is_none_or(|min| n >= min)
                        && rule["max"].as_i64().is_none_or(|max| n <= max)
                }),
                Some("number") => text.parse::<f64>().is_ok(),
                Some("boolean") => matches!(text, "0" | "1"),
                _ => rule["maxLength"]
                    .as_u64()
                    .is_none_or(|max| text.chars().count() as u64 <= max),
            };
            if !good || !self.in_enumeration(text, rule) {
                wrong.push(format!("parameter {name} = {text:?} does not fit {rule}"));
            }
        }
    }

    fn in_enumeration(&self, text: &str, rule: &Value) -> bool {
        let names = match &rule["enum"] {
            Value::String(name) => &self.0["enums"][name.trim_start_matches('@')],
            other => other,
        };
        names
            .as_array()
            .is_none_or(|names| names.iter().any(|name| name == text))
    }

    fn answer(&self, path: &str, value: &Value, rule: &Value, wrong: &mut Vec<String>) {
        let number = |value: &Value| match value {
            Value::Number(number) => number.as_f64(),
            // Some numbers come as texts.
            Value::String(text) => text.parse().ok(),
            _ => None,
        };
        let good = match rule["type"].as_str() {
            Some("null") => value.is_null(),
            Some("string") => value.as_str().is_some_and(|text| self.in_enumeration(text, rule)),
            Some("boolean") => value.is_boolean() || value == 0 || value == 1,
            Some("integer") => number(value).is_some_and(|n| n.fract() == 0.0),
            Some("number") => number(value).is_some(),
            Some("array") => value.is_array(),
            Some("object") => value.is_object(),
            _ => true,
        };
        if !good {
            wrong.push(format!("{path} = {value} does not fit type {}", rule["type"]));
        }
        for (at, item) in value.as_array().into_iter().flatten().enumerate() {
            self.answer(&format!("{path}[{at}]"), item, &rule["items"], wrong);
        }
        let (Some(fields), Some(rules)) = (value.as_object(), rule["properties"].as_object()) else {
            return;
        };
        for (name, rule) in rules {
            match fields.get(name) {
                Some(field) => self.answer(&format!("{path}.{name}"), field, rule, wrong),
                None if rule["required"] == true => wrong.push(format!("{path}.{name} is missing")),
                None => {}
            }
        }
    }
}

/// Uses every call of the client.
async fn use_client(sim: &RunningSim) {
    let client = client(sim);
    client.version().await.unwrap();
    client.nodes().await.unwrap();
    client.cluster_status().await.unwrap();
    client.cluster_vms().await.unwrap();
    client.cluster_storage().await.unwrap();
    client.next_vmid().await.unwrap();
    client.qemu_list("pve1").await.unwrap();
    client.lxc_list("pve2").await.unwrap();
    client.lxc_config("pve2", vmid(120)).await.unwrap();
    client
        .storage_content("pve1", "local", Some("import"))
        .await
        .unwrap();
    client.storage_content("pve1", "local-lvm", None).await.unwrap();
    let vm = cloned(&client, 100).await;
    let patch = ConfigPatch::new()
        .set("ciuser", "ubuntu")
        .set("cipassword", "x")
        .set("sshkeys", encode_sshkeys(KEY))
        .set("ipconfig0", "ip=10.77.0.50/24,gw=10.77.0.1")
        .set("nameserver", "1.1.1.1 8.8.8.8")
        .set("searchdomain", "local")
        .set("cores", 2)
        .set("memory", 2048)
        .set("cpu", "x86-64-v3")
        .set("tags", "nimbus")
        .set("net0", "virtio,bridge=vmbr0")
        .set("description", "<!-- nimbus -->")
        .delete("vga");
    let upid = client.set_config("pve1", vm, &patch).await.unwrap().unwrap();
    wait(&client, &upid).await.unwrap();
    client.vm_config("pve1", vm).await.unwrap();
    let upid = client
        .resize_disk("pve1", vm, "scsi0", 30)
        .await
        .unwrap()
        .unwrap();
    wait(&client, &upid).await.unwrap();
    for op in [PowerOp::Start, PowerOp::Reboot, PowerOp::Shutdown, PowerOp::Start] {
        let upid = client.power("pve1", vm, op).await.unwrap();
        wait(&client, &upid).await.unwrap();
    }
    client.vm_current("pve1", vm).await.unwrap();
    client.agent_interfaces("pve1", vm).await.unwrap();
    let pid = client
        .agent_exec("pve1", vm, &["cat"], Some("input"))
        .await
        .unwrap();
    client.agent_exec_status("pve1", vm, pid).await.unwrap();
    client
        .tasks(
            "pve1",
            &TaskFilter {
                vmid: Some(vm),
                kind: Some("qmstart".to_owned()),
                all: true,
                limit: Some(5),
            },
        )
        .await
        .unwrap();
    client.task_log(&upid, 20).await.unwrap();
    client.stop_task(&upid).await.unwrap();
    let image = DownloadSpec {
        url: "https://cloud.example.org/x.qcow2".to_owned(),
        content: "import".to_owned(),
        filename: "x.qcow2".to_owned(),
        checksum: Some(("sha256".to_owned(), "0".repeat(64))),
    };
    let upid = client.download_url("pve1", "local", &image).await.unwrap();
    wait(&client, &upid).await.unwrap();
    let options = ConfigPatch::new()
        .set("name", "t")
        .set("scsi0", "local-lvm:0,import-from=local:import/x.qcow2");
    let upid = client.create_vm("pve1", vmid(101), &options).await.unwrap();
    wait(&client, &upid).await.unwrap();
    let upid = client.make_template("pve1", vmid(101)).await.unwrap().unwrap();
    wait(&client, &upid).await.unwrap();
    let upid = client.power("pve1", vm, PowerOp::Stop).await.unwrap();
    wait(&client, &upid).await.unwrap();
    let upid = client.destroy("pve1", vm).await.unwrap();
    wait(&client, &upid).await.unwrap();
}

/// Uses the calls the client has no need of.
async fn use_neighbours(sim: &RunningSim) {
    let http = reqwest::Client::builder().build().unwrap();
    let send = async |method: &str, path: &str, form: &str| {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let request = http
            .request(method.clone(), format!("{}/api2/json{path}", sim.url))
            .header("Authorization", format!("PVEAPIToken=root@pam!nimbus={SECRET}"));
        let request = if form.is_empty() {
            request
        } else {
            request
                .header("Content-Type", "application/x-www-form-urlencoded")
                .body(form.to_owned())
        };
        let answer = request.send().await.unwrap();
        assert!(
            answer.status().is_success(),
            "{method} {path}: {}",
            answer.status()
        );
    };
    sim.add_guest(ForeignGuest {
        vmid: Some(700),
        tags: "a;b".to_owned(),
        ..ForeignGuest::default()
    })
    .unwrap();
    for (method, path, form) in [
        ("GET", "/", ""),
        ("GET", "/access/ticket", ""),
        ("POST", "/access/ticket", "username=root%40pam&password=hunter2"),
        ("GET", "/access/permissions", ""),
        ("GET", "/access/users", ""),
        ("GET", "/pools", ""),
        ("GET", "/cluster", ""),
        ("GET", "/cluster/options", ""),
        ("GET", "/cluster/resources", ""),
        ("GET", "/cluster/tasks", ""),
        ("GET", "/cluster/nextid?vmid=4711", ""),
        ("GET", "/nodes/pve1", ""),
        ("GET", "/nodes/pve1/status", ""),
        ("GET", "/nodes/pve1/version", ""),
        ("GET", "/nodes/pve1/network", ""),
        ("GET", "/storage", ""),
        ("GET", "/storage/local", ""),
        ("GET", "/nodes/pve1/storage", ""),
        ("GET", "/nodes/pve1/storage/local-lvm/status", ""),
        ("GET", "/nodes/pve2/lxc/120", ""),
        ("GET", "/nodes/pve2/lxc/120/status/current", ""),
        ("GET", "/nodes/pve1/qemu/700", ""),
        ("GET", "/nodes/pve1/qemu/700/pending", ""),
        ("GET", "/nodes/pve1/qemu/700/snapshot", ""),
        ("GET", "/nodes/pve1/qemu/700/agent/get-osinfo", ""),
        ("POST", "/nodes/pve1/qemu/700/agent/ping", ""),
        ("PUT", "/nodes/pve1/qemu/700/config", "cores=2"),
        ("POST", "/nodes/pve1/qemu/700/status/reset", ""),
        ("POST", "/nodes/pve1/qemu/700/status/suspend", ""),
        ("POST", "/nodes/pve1/qemu/700/status/resume", ""),
        (
            "DELETE",
            "/nodes/pve1/storage/local/content/local%3Aimport%2Fx.qcow2",
            "",
        ),
    ] {
        send(method, path, form).await;
    }
}

#[tokio::test]
async fn requests_and_answers_fit_the_schema() {
    let seen: Arc<Mutex<Vec<Exchange>>> = Arc::default();
    let record = seen.clone();
    let (sim, _) =
        start(immediate().observer(move |exchange| record.lock().unwrap().push(exchange.clone()))).await;
    use_client(&sim).await;
    use_neighbours(&sim).await;

    let seen = std::mem::take(&mut *seen.lock().unwrap());
    let used: BTreeSet<(&str, &str)> = seen
        .iter()
        .filter(|e| e.status == 200)
        .map(|e| (e.method, e.template))
        .collect();
    let unused: Vec<String> = served_calls()
        .iter()
        .filter(|call| !used.contains(&(call.method, call.template)))
        .map(|call| format!("{} {}", call.method, call.template))
        .collect();
    assert_eq!(unused, Vec::<String>::new(), "calls that no test uses");

    let Some(schema) = Schema::load() else {
        println!("NIMBUS_PVE_SCHEMA is unset: schema conformance not checked");
        return;
    };
    let mut wrong: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut complain = |call: String, what: Vec<String>| {
        if !what.is_empty() {
            wrong.entry(call).or_default().extend(what);
        }
    };
    for call in served_calls().iter().filter(|call| call.template != "/") {
        let name = format!("{} {}", call.method, call.template);
        match schema.call(call.method, call.template) {
            None => complain(name, vec!["there is no such call".to_owned()]),
            Some(rules) => {
                let unknown = call
                    .params
                    .iter()
                    .filter(|param| rules["params"].get(param.as_str()).is_none());
                complain(
                    name,
                    unknown
                        .map(|param| format!("takes {param}, which PVE does not"))
                        .collect(),
                );
            }
        }
    }
    for exchange in &seen {
        let Some(rules) = schema.call(exchange.method, exchange.template) else {
            continue;
        };
        let name = format!("{} {}", exchange.method, exchange.template);
        complain(name.clone(), schema.request(exchange));
        let mut answer = Vec::new();
        if exchange.status == 200 {
            schema.answer("data", &exchange.data, &rules["returns"], &mut answer);
        }
        complain(name, answer);
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    println!("{} requests fit the schema", seen.len());
}

#[test]
fn the_check_finds_what_is_wrong() {
    let schema = Schema(serde_json::json!({
        "enums": {"colour": ["red"]},
        "endpoints": {"GET /x": {
            "params": {"n": {"type": "integer", "required": true, "max": 5}, "net[n]": {"type": "string"}, "c": {"type": "string", "enum": "@colour"}},
            "returns": {"type": "array", "items": {"type": "object", "properties": {"id": {"type": "string", "required": true}, "on": {"type": "boolean"}}}},
        }},
    }));
    let exchange = |params: Value| Exchange {
        method: "GET",
        template: "/x",
        params,
        status: 200,
        data: Value::Null,
    };
    assert!(
        schema
            .request(&exchange(serde_json::json!({"n": "5", "net3": "x", "c": "red"})))
            .is_empty()
    );
    assert_eq!(
        schema
            .request(&exchange(serde_json::json!({"n": "6", "c": "blue", "z": "1"})))
            .len(),
        3
    );
    assert_eq!(
        schema.request(&exchange(Value::Object(Map::new()))),
        ["parameter n is missing"]
    );
    let answer = |data: Value| {
        let mut wrong = Vec::new();
        schema.answer(
            "data",
            &data,
            &schema.call("GET", "/x").unwrap()["returns"],
            &mut wrong,
        );
        wrong.len()
    };
    assert_eq!(answer(serde_json::json!([{"id": "a", "on": 1}])), 0);
    assert_eq!(answer(serde_json::json!([{"on": 2}, {"id": 5}])), 3);
    assert_eq!(answer(serde_json::json!({})), 1);
}
