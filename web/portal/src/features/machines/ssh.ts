export interface SshTarget {
  username?: string | null;
  ip?: string | null;
  key_name?: string | null;
}

/** A word for a POSIX shell, quoted only where it must be. */
function word(text: string): string {
  return /^[A-Za-z0-9_./~@:+-]+$/.test(text) ? text : `'${text.replace(/'/g, "'\\''")}'`;
}

function keyPath(name: string): string {
  // The tilde must stay outside of quotes to be expanded.
  return `~/.ssh/${word(name)}`;
}

/** The command that opens a shell on the machine; null while it has no address. */
export function sshCommand(target: SshTarget): string | null {
  if (target.ip == null || target.ip === "" || target.username == null || target.username === "") return null;
  const key = target.key_name != null && target.key_name !== "" ? `-i ${keyPath(target.key_name)} ` : "";
  return `ssh ${key}${word(target.username)}@${target.ip}`;
}

/** Where a downloaded key goes, readable for its owner only. */
export function installKeyCommand(name: string): string {
  const file = word(name);
  return `install -m 600 ~/Downloads/${file} ~/.ssh/${file}`;
}

export type PublicKeyCheck = { ok: true; type: string; comment: string | null } | { ok: false; problem: string };

const TYPES = /^(ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(256|384|521)|sk-ssh-ed25519@openssh\.com|sk-ecdsa-sha2-nistp256@openssh\.com)$/;

/** Looks at a pasted public key before it is sent. */
export function checkPublicKey(text: string): PublicKeyCheck {
  const trimmed = text.trim();
  if (trimmed === "") return { ok: false, problem: "Paste a public key, or choose its file." };
  if (trimmed.includes("PRIVATE KEY")) {
    return { ok: false, problem: "This is a private key. Paste the public half: the file that ends in .pub." };
  }
  if (trimmed.includes("\n")) return { ok: false, problem: "Paste one key on one line." };
  const [type = "", body = "", ...rest] = trimmed.split(/\s+/);
  if (!TYPES.test(type)) {
    return { ok: false, problem: "A public key starts with ssh-ed25519, ssh-rsa or ecdsa-sha2-nistp256." };
  }
  if (!/^[A-Za-z0-9+/]{40,}={0,3}$/.test(body)) return { ok: false, problem: "The key looks cut off. Paste the whole line." };
  return { ok: true, type, comment: rest.length > 0 ? rest.join(" ") : null };
}
