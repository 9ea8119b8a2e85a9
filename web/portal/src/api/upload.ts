import { address, ApiError, failure } from "./client";
import { filesPath, type Files } from "./workloads";

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

function send(method: string, url: string, body: Blob, onProgress: (sent: number) => void, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    // Only this old way of asking tells how much of a body has gone out.
    const request = new XMLHttpRequest();
    request.open(method, url);
    request.setRequestHeader("content-type", "application/octet-stream");
    request.upload.onprogress = (event) => {
      onProgress(event.loaded);
    };
    request.onload = () => {
      if (request.status >= 200 && request.status < 300) resolve();
      else reject(failure({ status: request.status, headers: new Headers() }, parse(request.responseText)));
    };
    request.onerror = () => {
      reject(new ApiError(0, "The connection broke before everything was sent.", null));
    };
    request.onabort = () => {
      reject(new DOMException("The upload was cancelled.", "AbortError"));
    };
    signal.addEventListener("abort", () => {
      request.abort();
    });
    request.send(body);
  });
}

/** Writes a file into a sandbox; `onProgress` hears how many bytes have gone out. */
export function uploadFile(at: Files, path: string, file: Blob, onProgress: (sent: number) => void, signal: AbortSignal): Promise<void> {
  return send("PUT", address(filesPath(at, "content"), { path, createParents: 1 }), file, onProgress, signal);
}

/** Unpacks a tar archive into a directory of a sandbox. */
export function uploadArchive(at: Files, path: string, file: Blob, onProgress: (sent: number) => void, signal: AbortSignal): Promise<void> {
  return send("PUT", address(filesPath(at, "archive"), { path }), file, onProgress, signal);
}
