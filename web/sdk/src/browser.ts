/**
 * For pages that hold no credential: their server opens a session, takes a ticket from it and hands over
 * endpoint, session id and ticket; the page attaches with them, once, within a minute.
 */
import { NimbusPage } from "./page.js";
import { NimbusStdio, stdioQuery, type NimbusStdioRequest } from "./stdio.js";

export interface NimbusTicketGrant {
  readonly endpoint: string;
  readonly sessionId: string;
  readonly ticket: string;
}

/** Attaches to input and output of what the session is for. */
export function attachStdio(grant: NimbusTicketGrant, input: NimbusStdioRequest = {}): Promise<NimbusStdio> {
  const url = channel(grant, "stdio");
  for (const [name, value] of Object.entries(stdioQuery(input))) {
    if (value !== undefined) url.searchParams.set(name, String(value));
  }
  return NimbusStdio.overSocket(url.href, WebSocket, input.signal);
}

/** Drives the browser page of a desktop sandbox. */
export function attachPage(grant: NimbusTicketGrant): Promise<NimbusPage> {
  return NimbusPage.open(channel(grant, "page").href, WebSocket);
}

function channel(grant: NimbusTicketGrant, name: string): URL {
  const base = grant.endpoint.replace(/\/+$/, "").replace(/^http/, "ws");
  const url = new URL(`${base}/api/sessions/${encodeURIComponent(grant.sessionId)}/channels/${name}`);
  url.searchParams.set("ticket", grant.ticket);
  return url;
}

export { NimbusPage, NimbusStdio, type NimbusStdioRequest };
