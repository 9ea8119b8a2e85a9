import { readText, variable } from "./environment.js";
import { NimbusDiscoveryError } from "./errors.js";

/** Who the caller is. Issuer, audience and subject are hints of the client; the server checks the token itself. */
export type NimbusCredential =
  | { readonly kind: "bearer"; readonly token: string }
  | { readonly kind: "api_key"; readonly apiKey: string }
  | { readonly kind: "workload_identity"; readonly token: string; readonly issuer?: string; readonly audience?: string; readonly subject?: string };

/** What a caller may say about endpoint and credential; the rest is looked for. */
export interface DiscoveryOptions {
  readonly endpoint?: string | undefined;
  readonly token?: string | undefined;
  readonly apiKey?: string | undefined;
  readonly credential?: NimbusCredential | undefined;
}

/** Where to send requests, and the header that says who sends them. */
export interface Target {
  readonly endpoint: string;
  authorization(): Promise<readonly [string, string] | undefined>;
}

/** How long a token file is believed before it is read again. */
const TOKEN_FILE_MS = 60_000;

/**
 * Finds endpoint and credential: options, then environment, then credential file, then token file.
 * `anonymous`: a credential is not looked for, since the caller has its own way, or needs none.
 */
export async function discover(options: DiscoveryOptions, anonymous: boolean, now: () => number = Date.now): Promise<Target> {
  let endpoint = nonEmpty(options.endpoint) ?? variable("NIMBUS_ENDPOINT");
  let credential = fromOptions(options) ?? (anonymous ? undefined : fromEnvironment());
  // The file is only read for what is still missing.
  if (endpoint === undefined || (credential === undefined && !anonymous)) {
    const file = await credentialFile();
    endpoint ??= file?.endpoint;
    if (!anonymous) credential ??= file?.credential;
  }
  if (endpoint === undefined) {
    throw new NimbusDiscoveryError(
      "no endpoint: pass the option `endpoint`, set NIMBUS_ENDPOINT, or name one in the credential file",
    );
  }
  const origin = checkedEndpoint(endpoint);
  if (credential !== undefined) {
    const header = headerOf(credential);
    return { endpoint: origin, authorization: () => Promise.resolve(header) };
  }
  if (anonymous) return { endpoint: origin, authorization: () => Promise.resolve(undefined) };
  const tokenFile = variable("NIMBUS_WORKLOAD_IDENTITY_TOKEN_FILE");
  if (tokenFile !== undefined) {
    const token = cachedToken(tokenFile, now);
    await token();
    return { endpoint: origin, authorization: async () => headerOf({ kind: "workload_identity", token: await token() }) };
  }
  throw new NimbusDiscoveryError(
    "no credential: pass the option `token`, `apiKey` or `credential`, or set NIMBUS_TOKEN, NIMBUS_API_KEY, " +
      "NIMBUS_WORKLOAD_IDENTITY_TOKEN or NIMBUS_WORKLOAD_IDENTITY_TOKEN_FILE, or write a credential file " +
      "(NIMBUS_APPLICATION_CREDENTIALS, ~/.config/nimbus/application_default_credentials.json)",
  );
}

function fromOptions(options: DiscoveryOptions): NimbusCredential | undefined {
  if (options.credential !== undefined) return options.credential;
  const token = nonEmpty(options.token);
  if (token !== undefined) return { kind: "bearer", token };
  const apiKey = nonEmpty(options.apiKey);
  return apiKey === undefined ? undefined : { kind: "api_key", apiKey };
}

function fromEnvironment(): NimbusCredential | undefined {
  const token = variable("NIMBUS_TOKEN") ?? variable("NIMBUS_BEARER_TOKEN");
  if (token !== undefined) return { kind: "bearer", token };
  const apiKey = variable("NIMBUS_API_KEY");
  if (apiKey !== undefined) return { kind: "api_key", apiKey };
  const workload = variable("NIMBUS_WORKLOAD_IDENTITY_TOKEN");
  if (workload === undefined) return undefined;
  return workloadIdentity(workload, {
    issuer: variable("NIMBUS_WORKLOAD_IDENTITY_ISSUER"),
    audience: variable("NIMBUS_WORKLOAD_IDENTITY_AUDIENCE"),
    subject: variable("NIMBUS_WORKLOAD_IDENTITY_SUBJECT"),
  });
}

function workloadIdentity(token: string, hints: Readonly<Record<"issuer" | "audience" | "subject", string | undefined>>): NimbusCredential {
  const { issuer, audience, subject } = hints;
  return {
    kind: "workload_identity",
    token,
    ...(issuer === undefined ? {} : { issuer }),
    ...(audience === undefined ? {} : { audience }),
    ...(subject === undefined ? {} : { subject }),
  };
}

interface FromFile {
  readonly endpoint: string | undefined;
  readonly credential: NimbusCredential | undefined;
}

function credentialPath(): string | undefined {
  const named = variable("NIMBUS_APPLICATION_CREDENTIALS");
  if (named !== undefined) return named;
  const home = variable("HOME") ?? variable("USERPROFILE");
  const config = variable("XDG_CONFIG_HOME") ?? (home === undefined ? undefined : `${home}/.config`);
  return config === undefined ? undefined : `${config}/nimbus/application_default_credentials.json`;
}

async function credentialFile(): Promise<FromFile | undefined> {
  const path = credentialPath();
  if (path === undefined) return undefined;
  const text = await readText(path).catch((error: unknown) => {
    throw new NimbusDiscoveryError(`the credential file ${path} cannot be read`, { cause: error });
  });
  if (text === undefined) return undefined;
  let content: unknown;
  try {
    content = JSON.parse(text);
  } catch {
    // The parser's own message quotes the text, and the text holds a secret.
    throw new NimbusDiscoveryError(`the credential file ${path} is not JSON`);
  }
  if (typeof content !== "object" || content === null || Array.isArray(content)) {
    throw new NimbusDiscoveryError(`the credential file ${path} is not a JSON object`);
  }
  const top = reader(content, path);
  return { endpoint: top("endpoint"), credential: nested(content, path) ?? topLevel(top) };
}

type Reader = (...names: string[]) => string | undefined;

/** Reads the first of several fields that is a text with something in it. */
function reader(content: object, path: string): Reader {
  const fields = new Map<string, unknown>(Object.entries(content));
  return (...names) => {
    for (const name of names) {
      const value = fields.get(name);
      if (value === undefined || value === null || value === "") continue;
      if (typeof value !== "string") throw new NimbusDiscoveryError(`\`${name}\` in the credential file ${path} is not a text`);
      return nonEmpty(value);
    }
    return undefined;
  };
}

function topLevel(top: Reader): NimbusCredential | undefined {
  const token = top("token", "access_token");
  if (token !== undefined) return { kind: "bearer", token };
  const apiKey = top("api_key", "apiKey");
  return apiKey === undefined ? undefined : { kind: "api_key", apiKey };
}

function nested(content: object, path: string): NimbusCredential | undefined {
  if (!("credential" in content) || content.credential === null) return undefined;
  if (typeof content.credential !== "object") throw new NimbusDiscoveryError(`\`credential\` in the credential file ${path} is not an object`);
  const field = reader(content.credential, path);
  const kind = field("kind", "type");
  if (kind === "api_key") {
    const apiKey = field("apiKey", "api_key");
    if (apiKey !== undefined) return { kind: "api_key", apiKey };
    throw new NimbusDiscoveryError(`\`credential\` in the credential file ${path} has no \`apiKey\``);
  }
  if (kind !== "bearer" && kind !== "access_token" && kind !== "workload_identity") {
    throw new NimbusDiscoveryError(
      `\`credential.kind\` in the credential file ${path} is none of bearer, access_token, workload_identity, api_key`,
    );
  }
  const token = field("token", "access_token");
  if (token === undefined) throw new NimbusDiscoveryError(`\`credential\` in the credential file ${path} has no \`token\``);
  if (kind !== "workload_identity") return { kind: "bearer", token };
  return workloadIdentity(token, { issuer: field("issuer"), audience: field("audience"), subject: field("subject") });
}

/** Reads a token that somebody else renews. */
function cachedToken(path: string, now: () => number): () => Promise<string> {
  let token = "";
  let until = -Infinity;
  return async () => {
    if (now() < until) return token;
    const text = await readText(path).catch((error: unknown) => {
      throw new NimbusDiscoveryError(`NIMBUS_WORKLOAD_IDENTITY_TOKEN_FILE: ${path} cannot be read`, { cause: error });
    });
    const read = nonEmpty(text);
    if (read === undefined) throw new NimbusDiscoveryError(`NIMBUS_WORKLOAD_IDENTITY_TOKEN_FILE: there is no token in ${path}`);
    token = read;
    until = now() + TOKEN_FILE_MS;
    return token;
  };
}

function headerOf(credential: NimbusCredential): readonly [string, string] {
  const secret = nonEmpty(credential.kind === "api_key" ? credential.apiKey : credential.token);
  if (secret === undefined) throw new NimbusDiscoveryError(`the credential of kind ${credential.kind} is empty`);
  return credential.kind === "api_key" ? ["x-nimbus-api-key", secret] : ["authorization", `Bearer ${secret}`];
}

function checkedEndpoint(endpoint: string): string {
  let url: URL;
  try {
    url = new URL(endpoint);
  } catch {
    throw new NimbusDiscoveryError(`the endpoint ${JSON.stringify(endpoint)} is not a URL like http://127.0.0.1:8080`);
  }
  if (url.protocol !== "http:" && url.protocol !== "https:") {
    throw new NimbusDiscoveryError(`the endpoint ${JSON.stringify(endpoint)} is not an http or https URL`);
  }
  if (url.username !== "" || url.password !== "") {
    throw new NimbusDiscoveryError("the endpoint must not hold a user or a password");
  }
  return `${url.origin}${url.pathname.replace(/\/+$/, "")}`;
}

function nonEmpty(value: string | undefined): string | undefined {
  const trimmed = value?.trim();
  return trimmed === "" ? undefined : trimmed;
}
