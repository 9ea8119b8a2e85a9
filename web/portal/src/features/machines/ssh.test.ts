import { describe, expect, it } from "vitest";
import { checkPublicKey, installKeyCommand, sshCommand } from "./ssh";

const KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIH0Zs5w3aJb2xkq0aB6bQd6uQ0g2m7m1dK3JX0M8w3cP";

describe("sshCommand", () => {
  it("names user and address", () => {
    expect(sshCommand({ username: "ubuntu", ip: "10.77.0.51", key_name: null })).toBe("ssh ubuntu@10.77.0.51");
  });

  it("points at a generated key", () => {
    expect(sshCommand({ username: "debian", ip: "10.77.0.9", key_name: "nimbus-web" })).toBe("ssh -i ~/.ssh/nimbus-web debian@10.77.0.9");
  });

  it("quotes what a shell would break, and leaves the tilde outside", () => {
    expect(sshCommand({ username: "debian", ip: "10.77.0.9", key_name: "my key" })).toBe("ssh -i ~/.ssh/'my key' debian@10.77.0.9");
    expect(sshCommand({ username: "debian", ip: "10.77.0.9", key_name: "a'; rm -rf /" })).toBe("ssh -i ~/.ssh/'a'\\''; rm -rf /' debian@10.77.0.9");
  });

  it("does not exist without an address", () => {
    expect(sshCommand({ username: "ubuntu", ip: null })).toBeNull();
    expect(sshCommand({ username: "", ip: "10.0.0.1" })).toBeNull();
  });

  it("comes with the way to install the key", () => {
    expect(installKeyCommand("nimbus-web")).toBe("install -m 600 ~/Downloads/nimbus-web ~/.ssh/nimbus-web");
  });
});

describe("checkPublicKey", () => {
  it("takes a key with and without a comment", () => {
    expect(checkPublicKey(`  ${KEY}\n`)).toEqual({ ok: true, type: "ssh-ed25519", comment: null });
    expect(checkPublicKey(`${KEY} ada at home`)).toEqual({ ok: true, type: "ssh-ed25519", comment: "ada at home" });
  });

  it.each([
    ["", "Paste a public key"],
    ["-----BEGIN OPENSSH PRIVATE KEY-----\nabc", "private key"],
    [`${KEY}\n${KEY}`, "one line"],
    ["ssh-dss AAAA", "starts with"],
    ["ssh-ed25519 AAAA", "cut off"],
  ])("explains %j", (text, words) => {
    const check = checkPublicKey(text);
    expect(check.ok ? "" : check.problem).toContain(words);
  });
});
