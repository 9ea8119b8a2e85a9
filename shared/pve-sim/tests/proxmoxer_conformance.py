#!/usr/bin/env python3
"""Drives the simulator with proxmoxer, a client that knows nothing of it.

Environment:
  PVE_URL           address, for instance https://127.0.0.1:8006
  PVE_TOKEN_ID      user@realm!name
  PVE_TOKEN_SECRET  the token's value
  PVE_PASSWORD      password of root@pam; without it the login by password is not checked

Exit code 0 only if every check holds. Certificates are not checked: the simulator makes its own.
"""

import os
import sys
import time
import warnings
from urllib.parse import quote, urlsplit

import requests
from proxmoxer import AuthenticationError, ProxmoxAPI, ResourceException
from proxmoxer.tools import Tasks

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ+/b== me@example.org"
TEMPLATE = 9000
checks = 0


def check(condition, what):
    global checks
    checks += 1
    if not condition:
        raise AssertionError(what)


def equal(got, wanted, what):
    check(got == wanted, f"{what}: expected {wanted!r}, got {got!r}")


def refused(status, text, call, **params):
    """The call is refused with this status, and the text is in the reason or among the field errors."""
    try:
        answer = call(**params)
    except ResourceException as error:
        equal(error.status_code, status, f"status of the refusal {error}")
        check(text in f"{error.content} {error.errors}", f"expected {text!r} in {error.content!r} {error.errors!r}")
        return
    raise AssertionError(f"expected a refusal {status} {text!r}, got {answer!r}")


def wait(api, upid):
    status = Tasks.blocking_status(api, upid, timeout=120, polling_interval=0.05)
    check(status is not None, f"{upid} did not end")
    return status["exitstatus"]


def done(api, upid):
    equal(wait(api, upid), "OK", f"end of {upid}")


def plain_http(simulator):
    """proxmoxer builds https addresses only: sends them to a plain simulator all the same."""
    secure, plain = f"https://{simulator.netloc}", f"http://{simulator.netloc}"
    original = requests.Session.request

    def request(session, method, url, *args, **kwargs):
        return original(session, method, url.replace(secure, plain), *args, **kwargs)

    requests.Session.request = request


def inventory(api):
    check(api.version.get()["version"].startswith("9."), "version")
    nodes = api.nodes.get()
    check(len(nodes) >= 1 and all(node["status"] == "online" for node in nodes), "nodes are online")
    check(api.nodes("pve1").status.get()["memory"]["total"] > 0, "memory of a node")
    kinds = {row["type"] for row in api.cluster.resources.get()}
    check({"qemu", "node", "storage"} <= kinds, f"kinds of resources: {kinds}")
    templates = [row for row in api.cluster.resources.get(type="vm") if row.get("template") == 1]
    check(any(row["vmid"] == TEMPLATE for row in templates), "the first template is listed")
    check(any(row["storage"] == "local-lvm" for row in api.nodes("pve1").storage.get()), "storages")
    images = api.nodes("pve1").storage("local").content.get(content="import")
    check(images and all(image["format"] == "qcow2" for image in images), "images")
    check(any("VM.Clone" in rights for rights in api.access.permissions.get().values()), "permissions")
    check(any(row["type"] == "node" for row in api.cluster.status.get()), "cluster status")
    check(isinstance(api.pools.get(), list), "pools")


def life_of_a_machine(api):
    node = api.nodes("pve1")
    vmid = int(api.cluster.nextid.get())
    upid = node.qemu(TEMPLATE).clone.post(newid=vmid, name="conformance", full=1)
    equal(Tasks.decode_upid(upid)["type"], "qmclone", "type of the task")
    done(api, upid)
    log = Tasks.decode_log(node.tasks(upid).log.get(limit=500))
    check(log.endswith("TASK OK") and "create full clone of drive scsi0" in log, f"log of the clone: {log}")

    vm = node.qemu(vmid)
    keys = quote(KEY, safe="")
    done(api, vm.config.post(
        cores=2, memory=2048, ciuser="ubuntu", cipassword="a;b=c&d", sshkeys=keys, ipconfig0="ip=10.77.0.90/24,gw=10.77.0.1",
        tags="Web;app", description="two\nlines", delete="vga",
    ))
    config = vm.config.get()
    equal(config["sshkeys"], keys, "sshkeys come back encoded")
    equal(config["tags"], "app;web", "tags come back sorted")
    equal(config["memory"], "2048", "memory is a text")
    equal(config["cores"], 2, "cores are a number")
    equal(config["description"], "two\nlines\n", "description")
    check("vga" not in config and set(config["cipassword"]) == {"*"}, "deleted and hidden options")
    equal(vm.config.put(onboot=1), None, "the synchronous way answers nothing")
    done(api, vm.resize.put(disk="scsi0", size="20G"))
    check(vm.config.get()["scsi0"].endswith("size=20G"), "size of the disk")

    refused(500, "is not running", vm.agent("network-get-interfaces").get)
    done(api, vm.status.start.post())
    equal(vm.status.current.get()["status"], "running", "status")
    equal(wait(api, vm.status.start.post()), f"VM {vmid} already running", "second start")
    deadline = time.monotonic() + 60
    addresses = []
    while "10.77.0.90" not in addresses:
        check(time.monotonic() < deadline, f"the agent reports {addresses}")
        try:
            found = vm.agent("network-get-interfaces").get()["result"]
            addresses = [a["ip-address"] for i in found for a in i.get("ip-addresses", [])]
        except ResourceException as error:
            check("QEMU guest agent is not running" in error.content, f"refusal of the agent: {error}")
    check("id" in vm.agent("get-osinfo").get()["result"], "system of the guest")
    pid = vm.agent.exec.post(command="echo hello world")["pid"]
    while not (status := vm.agent("exec-status").get(pid=pid))["exited"]:
        check(time.monotonic() < deadline, "the command ends")
    equal((status["exitcode"], status["out-data"]), (0, "hello world\n"), "output of a command")

    refused(500, f"VM {vmid} is running - destroy failed", vm.delete)
    done(api, vm.status.shutdown.post())
    equal(vm.status.current.get()["status"], "stopped", "status")
    done(api, vm.delete(purge=1, **{"destroy-unreferenced-disks": 1}))
    refused(500, f"Configuration file 'nodes/pve1/qemu-server/{vmid}.conf' does not exist", vm.config.get)
    check(any(task["id"] == str(vmid) for task in node.tasks.get(vmid=vmid)), "its tasks are remembered")


def refusals(api):
    node = api.nodes("pve1")
    template = node.qemu(TEMPLATE)
    refused(501, "not implemented", api.nowhere.get)
    refused(501, "not implemented", api.nodes("pve1").lxc(120).exec.post)
    refused(400, "property is missing", template.clone.post)
    refused(400, "type check ('integer') failed", template.clone.post, newid="many")
    refused(400, "not defined in schema", template.clone.post, newid=200, colour="red")
    refused(400, "invalid urlencoded string", template.config.post, sshkeys=KEY)
    refused(400, "unknown option 'colour'", template.config.post, delete="colour")
    refused(400, "already exists", api.cluster.nextid.get, vmid=TEMPLATE)
    refused(500, "unable to find configuration file", node.qemu(4711).clone.post, newid=200)
    refused(500, "config file already exists", template.clone.post, newid=110)
    refused(500, "no such cluster node", template.clone.post, newid=200, target="pve99")
    refused(500, "no options specified", template.config.post)
    refused(500, "hostname lookup 'pve99' failed", api.nodes("pve99").qemu.get)
    refused(400, "unable to parse worker upid", node.tasks("nonsense").status.get)
    equal(wait(api, template.status.start.post()), "you can't start a vm if it's a template", "start of a template")


def main():
    url = urlsplit(os.environ["PVE_URL"])
    user, _, token = os.environ["PVE_TOKEN_ID"].partition("!")
    secret = os.environ["PVE_TOKEN_SECRET"]
    password = os.environ.get("PVE_PASSWORD")
    warnings.filterwarnings("ignore", message="Unverified HTTPS request")
    if url.scheme == "http":
        plain_http(url)

    def by_token(value):
        return ProxmoxAPI(url.netloc, user=user, token_name=token, token_value=value, verify_ssl=False, timeout=30)

    api = by_token(secret)
    inventory(api)
    life_of_a_machine(api)
    refusals(api)
    refused(401, "", by_token("wrong").version.get)

    if password:
        session = ProxmoxAPI(url.netloc, user="root@pam", password=password, verify_ssl=False, timeout=30)
        inventory(session)
        life_of_a_machine(session)
        try:
            ProxmoxAPI(url.netloc, user="root@pam", password=password + "x", verify_ssl=False, timeout=30)
        except AuthenticationError:
            check(True, "")
        else:
            raise AssertionError("a wrong password is accepted")
    else:
        print("PVE_PASSWORD is unset: login by password not checked")
    print(f"proxmoxer: {checks} checks hold")


if __name__ == "__main__":
    try:
        main()
    except (AssertionError, ResourceException) as error:
        print(f"proxmoxer: {error}", file=sys.stderr)
        sys.exit(1)
