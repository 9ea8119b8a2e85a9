import { address, ApiError } from "./client";
import { work } from "./workloads";

const PROTOCOL = "nimbus.session.v1";
const TIMEOUT_MS = 30_000;

interface PageRequest {
  method: string;
  params: Record<string, unknown>;
}

function field(value: unknown, name: string): unknown {
  return typeof value === "object" && value !== null ? Reflect.get(value, name) : undefined;
}

/** The image in an answer: base64 as it is, or in a field. */
function image(result: unknown): string | null {
  const found = typeof result === "string" ? result : (field(result, "data") ?? field(result, "image"));
  return typeof found === "string" ? found : null;
}

/** Asks the browser of a desktop sandbox, one thing after another; answers with the last one's text. */
export async function pageCall(session: string, requests: readonly PageRequest[]): Promise<string> {
  const ticket = await work.ticket(session).then(
    (found) => found.ticket,
    (error: unknown) => {
      if (error instanceof ApiError && error.fault?.code === "service.route_not_found") return undefined;
      throw error;
    },
  );
  const path = address(`/api/sessions/${encodeURIComponent(session)}/channels/page`, { ticket });
  return new Promise((resolve, reject) => {
    const socket = new WebSocket(new URL(path, window.location.origin.replace(/^http/, "ws")), PROTOCOL);
    let at = 0;
    const end = (settle: () => void) => {
      clearTimeout(timer);
      socket.onclose = null;
      socket.close();
      settle();
    };
    const fail = (message: string) => {
      end(() => {
        reject(new ApiError(0, message, null));
      });
    };
    const timer = setTimeout(() => {
      fail("The browser inside did not answer in time.");
    }, TIMEOUT_MS);
    const next = () => {
      const request = requests[at];
      if (request !== undefined) socket.send(JSON.stringify({ id: at + 1, ...request }));
    };
    socket.onopen = next;
    socket.onclose = (event) => {
      fail(event.reason === "" ? "The connection to the browser inside was lost." : `The browser inside is gone: ${event.reason}.`);
    };
    socket.onmessage = (event: MessageEvent<unknown>) => {
      if (typeof event.data !== "string") return;
      let message: unknown;
      try {
        message = JSON.parse(event.data);
      } catch {
        return;
      }
      if (field(message, "id") !== at + 1) return;
      const refused = field(field(message, "error"), "message");
      if (typeof refused === "string") {
        fail(refused);
        return;
      }
      at += 1;
      if (at < requests.length) {
        next();
        return;
      }
      const found = image(field(message, "result"));
      if (found === null) fail("The browser inside sent no image.");
      else end(() => { resolve(found); });
    };
  });
}
