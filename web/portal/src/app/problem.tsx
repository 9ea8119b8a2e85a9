import type { ReactNode } from "react";
import { ApiError } from "~/api/client";
import { Button } from "~/ui/button";
import { Copyable } from "~/ui/copy";

export interface Problem {
  title: string;
  what: string;
  todo: string | null;
  code: string | null;
  requestId: string | null;
}

/** Turns any failure into what happened, what to do, and what to quote. */
export function explain(error: unknown, title = "This could not be loaded"): Problem {
  if (error instanceof ApiError) {
    return {
      title: error.status === 403 ? "You may not see this" : error.status === 404 ? "There is nothing here" : title,
      what: error.message,
      todo:
        error.fault?.remediation?.message ??
        (error.retryAfter !== null ? `Try again in ${error.retryAfter} s.` : null),
      code: error.fault?.code ?? null,
      requestId: error.fault?.requestId ?? null,
    };
  }
  return { title, what: error instanceof Error ? error.message : "Something unexpected happened.", todo: null, code: null, requestId: null };
}

/** The facts to quote when asking for help. */
export function Reference({ code, requestId }: { code: string | null; requestId: string | null }) {
  if (code === null && requestId === null) return null;
  return (
    <dl className="flex flex-wrap gap-x-5 gap-y-1 text-xs text-muted">
      {code !== null ? (
        <div className="flex items-center gap-1.5">
          <dt>Code</dt>
          <dd>
            <Copyable text={code} label="Copy error code" />
          </dd>
        </div>
      ) : null}
      {requestId !== null ? (
        <div className="flex min-w-0 items-center gap-1.5">
          <dt className="shrink-0">Request</dt>
          <dd className="min-w-0">
            <Copyable text={requestId} label="Copy request id" />
          </dd>
        </div>
      ) : null}
    </dl>
  );
}

export function ErrorState({ error, title, onRetry, children }: { error: unknown; title?: string; onRetry?: () => void; children?: ReactNode }) {
  const problem = explain(error, title);
  return (
    <div role="alert" className="flex flex-col items-start gap-3 px-6 py-8 sm:px-10">
      <div className="flex max-w-prose flex-col gap-1">
        <h2 className="text-lg font-semibold">{problem.title}</h2>
        <p>{problem.what}</p>
        {problem.todo !== null ? <p className="text-muted">{problem.todo}</p> : null}
      </div>
      <Reference code={problem.code} requestId={problem.requestId} />
      {onRetry || children ? (
        <div className="flex gap-2 pt-1">
          {onRetry ? <Button onPress={onRetry}>Try again</Button> : null}
          {children}
        </div>
      ) : null}
    </div>
  );
}

/** The same, small, inside a form or a dialog. */
export function InlineError({ error, title, brief }: { error: unknown; title?: string; brief?: boolean }) {
  const problem = explain(error, title);
  if (brief === true) {
    // Where the reader knows what to do, advice and codes are in the way.
    return (
      <div role="alert" className="rounded border border-bad-line bg-bad-faint px-3 py-2.5 text-sm font-semibold text-bad-strong">
        {problem.what}
      </div>
    );
  }
  return (
    <div role="alert" className="flex flex-col gap-1 rounded border border-bad-line bg-bad-faint px-3 py-2.5 text-sm text-bad-strong">
      <p className="font-semibold">{problem.what}</p>
      {problem.todo !== null ? <p>{problem.todo}</p> : null}
      {problem.code !== null ? (
        <p className="font-mono text-xs">
          {problem.code}
          {problem.requestId !== null ? ` · ${problem.requestId}` : ""}
        </p>
      ) : null}
    </div>
  );
}
