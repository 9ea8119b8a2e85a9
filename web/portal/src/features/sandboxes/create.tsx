import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useNavigate } from "@tanstack/react-router";
import { useMemo, useRef, useState } from "react";
import { Form } from "react-aria-components/Form";
import { Label } from "react-aria-components/Label";
import { RadioGroup } from "react-aria-components/RadioGroup";
import { ApiError } from "~/api/client";
import { keys, queries } from "~/api/queries";
import { work, type CreateSandbox } from "~/api/workloads";
import { Page } from "~/app/page";
import { InlineError } from "~/app/problem";
import { useTenant } from "~/app/tenant";
import { OPEN } from "~/features/services/model";
import { Button, ButtonLink } from "~/ui/button";
import { ChoiceCard, ChoiceDot } from "~/ui/choice";
import { Combo, type Suggestion } from "~/ui/combo";
import { Field } from "~/ui/field";
import { Select } from "~/ui/select";
import { Notice } from "~/ui/status";
import { splitCommand } from "./argv";
import { useKeepSandbox } from "./actions";
import { IDLE_TIMES, LIFETIMES, loadDraft, problems, saveDraft, toRequest, type Problems, type Run, type SandboxDraft } from "./draft";
import { imageName, imageOf } from "./name";
import { Options } from "./options";
import { Plan } from "./plan";

/** Small images that most people have met; what this tenant used before stands in front of them. */
const WELL_KNOWN: readonly Suggestion[] = [
  { key: "python:3.12-slim", hint: "Python" },
  { key: "node:22-slim", hint: "Node.js" },
  { key: "debian:12-slim", hint: "Debian" },
  { key: "alpine:3", hint: "Alpine" },
  { key: "busybox:1", hint: "BusyBox" },
];

/** A key of our own: crypto.randomUUID does not exist on plain HTTP. */
function randomKey(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export function CreateSandboxPage() {
  return (
    <Page title="Create sandbox" lead="An isolated world for one task: an image, a process, and no network but what you allow.">
      <CreateForm />
    </Page>
  );
}

function CreateForm() {
  const tenant = useTenant();
  const navigate = useNavigate();
  const client = useQueryClient();
  const keep = useKeepSandbox();
  const [draft, setDraft] = useState<SandboxDraft>(loadDraft);
  const [tried, setTried] = useState(false);
  const attempt = useRef<{ body: string; key: string } | null>(null);
  const { data: about } = useQuery(queries.tenant(tenant));
  const { data: sandboxes } = useQuery(queries.sandboxes(tenant));
  const policy = about?.policy ?? OPEN;
  const request = useMemo(() => toRequest(draft, policy), [draft, policy]);
  const found = problems(draft);
  const shown: Problems = tried ? found : {};

  const suggestions = useMemo(() => {
    const used = new Set((sandboxes ?? []).flatMap((sandbox) => imageOf(sandbox) ?? []).map(imageName));
    return [...[...used].map((key) => ({ key, hint: "used before" })), ...WELL_KNOWN.filter((item) => !used.has(item.key))];
  }, [sandboxes]);

  const change = (part: Partial<SandboxDraft>) => {
    setDraft((before) => {
      const next = { ...before, ...part };
      saveDraft(next);
      return next;
    });
  };

  const create = useMutation({
    mutationFn: (body: CreateSandbox) => {
      const text = JSON.stringify(body);
      // The same request after a lost answer must not make a second sandbox.
      if (attempt.current?.body !== text) attempt.current = { body: text, key: randomKey() };
      return work.createSandbox(tenant, body, attempt.current.key);
    },
    onSuccess: (sandbox) => {
      keep(sandbox);
      void client.invalidateQueries({ queryKey: keys.tenant(tenant) });
      void navigate({ to: "/sandboxes/$sandboxId", params: { sandboxId: sandbox.metadata.id } });
    },
    onError: (error) => {
      const lost = error instanceof ApiError && (error.status === 0 || error.status >= 502);
      if (!lost) attempt.current = null;
    },
  });

  const quota = about?.quota;
  const full = quota?.limit.sandboxes !== undefined && (quota.used.sandboxes ?? 0) >= quota.limit.sandboxes ? `All ${quota.limit.sandboxes} sandboxes of this tenant are in use. Stop one first.` : null;

  const submit = () => {
    setTried(true);
    if (create.isPending || full !== null) return;
    if (Object.keys(found).length > 0) {
      requestAnimationFrame(() => {
        document.querySelector<HTMLElement>("[aria-invalid=true]")?.focus();
      });
      return;
    }
    create.mutate(request);
  };

  return (
    <Form
      className="grid items-start gap-x-10 gap-y-8 xl:grid-cols-[minmax(0,42rem)_minmax(20rem,1fr)]"
      onSubmit={(event) => {
        event.preventDefault();
        submit();
      }}
    >
      <div className="flex min-w-0 flex-col gap-6">
        <Combo
          label="Image"
          mono
          autoFocus
          value={draft.image}
          onChange={(image) => {
            change({ image });
          }}
          suggestions={suggestions}
          placeholder="python:3.12-slim"
          description="Any OCI image that the hosts can pull. Short names mean Docker Hub."
          error={shown.image}
        />
        <RunChoice draft={draft} change={change} error={shown.command} />
        <Profile draft={draft} change={change} />
        <div className="grid gap-4 sm:grid-cols-3">
          <Field
            label="Name"
            value={draft.name}
            onChange={(name) => {
              change({ name });
            }}
            maxLength={128}
            autoComplete="off"
            placeholder="batch-job"
            description="Optional, for lists only."
            error={shown.name}
          />
          <Select tall label="Lifetime" options={LIFETIMES} value={LIFETIMES.find((item) => item.key === draft.ttl)?.key ?? "3600000"} onChange={(ttl) => { change({ ttl }); }} />
          <Select tall label="When idle" options={IDLE_TIMES} value={IDLE_TIMES.find((item) => item.key === draft.idle)?.key ?? "none"} onChange={(idle) => { change({ idle }); }} />
        </div>
        <Options draft={draft} change={change} problems={shown} policy={policy} tenant={tenant} />
        {create.isError ? <InlineError error={create.error} /> : null}
        {full !== null ? (
          <Notice tone="wait" role="status">
            <p>{full}</p>
          </Notice>
        ) : null}
        <div className="flex flex-wrap items-center gap-2">
          <Button kind="primary" size="lg" type="submit" isPending={create.isPending} pendingLabel="Creating" disabledReason={full}>
            Create sandbox
          </Button>
          <ButtonLink to="/sandboxes" kind="quiet" size="lg">
            Cancel
          </ButtonLink>
          {Object.keys(shown).length > 0 ? (
            <p role="status" className="text-sm text-bad-text">
              {Object.values(shown)[0]}
            </p>
          ) : null}
        </div>
      </div>
      <Plan draft={draft} request={request} tenant={tenant} {...(quota === undefined ? {} : { quota })} />
    </Form>
  );
}

const RUNS: readonly { key: Run; label: string; text: string }[] = [
  { key: "idle", label: "Nothing yet", text: "It stays up for a shell, commands and files." },
  { key: "command", label: "A command", text: "It ends when the command does." },
  { key: "image", label: "The image's own", text: "Whatever the image starts by itself." },
];

function RunChoice({ draft, change, error }: { draft: SandboxDraft; change: (part: Partial<SandboxDraft>) => void; error: string | undefined }) {
  const words = splitCommand(draft.command);
  return (
    <RadioGroup
      value={draft.run}
      onChange={(value) => {
        change({ run: RUNS.find((item) => item.key === value)?.key ?? "idle" });
      }}
      className="flex flex-col gap-2"
    >
      <Label className="text-sm font-medium">What it runs</Label>
      <div className="grid gap-3 sm:grid-cols-3">
        {RUNS.map((item) => (
          <ChoiceCard key={item.key} value={item.key} className="gap-0.5">
            <span className="flex items-center justify-between gap-2">
              <span className="font-medium">{item.label}</span>
              <ChoiceDot />
            </span>
            <span className="text-xs text-muted">{item.text}</span>
          </ChoiceCard>
        ))}
      </div>
      {draft.run === "command" ? (
        <div className="pt-2">
          <Field
            label="Command"
            mono
            value={draft.command}
            onChange={(command) => {
              change({ command });
            }}
            autoComplete="off"
            placeholder={'python -c "print(6 * 7)"'}
            description={words !== null && words.length > 1 ? `${words.length} words: ${words.map((word) => JSON.stringify(word)).join(" ")}` : "Split into words as a shell would; no shell is involved."}
            error={error}
          />
        </div>
      ) : null}
    </RadioGroup>
  );
}

function Profile({ draft, change }: { draft: SandboxDraft; change: (part: Partial<SandboxDraft>) => void }) {
  return (
    <RadioGroup
      value={draft.profile}
      onChange={(value) => {
        change({ profile: value === "desktop" ? "desktop" : "worker" });
      }}
      className="flex flex-col gap-2"
    >
      <Label className="text-sm font-medium">Profile</Label>
      <div className="grid gap-3 sm:grid-cols-2">
        <ChoiceCard value="worker" className="gap-0.5">
          <span className="flex items-center justify-between gap-2">
            <span className="font-medium">Worker</span>
            <ChoiceDot />
          </span>
          <span className="text-xs text-muted">The process alone, with a terminal and files.</span>
        </ChoiceCard>
        <ChoiceCard value="desktop" className="gap-0.5">
          <span className="flex items-center justify-between gap-2">
            <span className="font-medium">Desktop</span>
            <ChoiceDot />
          </span>
          <span className="text-xs text-muted">With a browser inside that a program can drive. Needs more memory.</span>
        </ChoiceCard>
      </div>
    </RadioGroup>
  );
}
