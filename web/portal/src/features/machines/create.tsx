import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { getRouteApi, useNavigate } from "@tanstack/react-router";
import { useMemo, useRef, useState } from "react";
import { Button as AriaButton } from "react-aria-components/Button";
import { FileTrigger } from "react-aria-components/FileTrigger";
import { Form } from "react-aria-components/Form";
import { Label } from "react-aria-components/Label";
import { RadioGroup } from "react-aria-components/RadioGroup";
import { ApiError } from "~/api/client";
import { api } from "~/api/endpoints";
import { applyEvent } from "~/api/events";
import { keys, queries } from "~/api/queries";
import type { Catalog, CreateMachine, Operation } from "~/api/types";
import { Page } from "~/app/page";
import { ErrorState, InlineError } from "~/app/problem";
import { Button, ButtonLink } from "~/ui/button";
import { ChoiceCard, ChoiceDot } from "~/ui/choice";
import { cx } from "~/ui/cx";
import { Field } from "~/ui/field";
import { mib } from "~/ui/format";
import { LockIcon, OsGlyph } from "~/ui/icons";
import { Bone, Panel } from "~/ui/states";
import { Notice } from "~/ui/status";
import { loadDraft, saveDraft, settleDraft, type Draft, type KeyMode } from "./draft";
import { tierLabel } from "./rules";
import { hostnameProblem, nextHostname, repairHostname, suggestHostname } from "./hostname";
import { Plan } from "./plan";
import { checkPublicKey } from "./ssh";

const route = getRouteApi("/session/machines/new");

export function CreateMachinePage() {
  const { retry } = route.useSearch();
  const navigate = useNavigate();
  const { data: catalog, error, isError, refetch } = useQuery({ ...queries.catalog(), refetchInterval: 10_000 });
  return (
    <Page title="Create machine" lead="A Linux VM with a static address and SSH access, in about a minute.">
      {catalog === undefined ? (
        isError ? (
          <Panel>
            <ErrorState error={error} title="What can be created could not be loaded" onRetry={() => void refetch()} />
          </Panel>
        ) : (
          <div role="status" aria-label="Loading form" className="flex max-w-2xl flex-col gap-6">
            <Bone className="h-9 w-full" />
            <div className="grid grid-cols-2 gap-3 sm:grid-cols-4">
              {Array.from({ length: 4 }, (_, card) => (
                <Bone key={card} className="h-28" />
              ))}
            </div>
            <Bone className="h-12 w-full" />
          </div>
        )
      ) : (
        <CreateForm
          catalog={catalog}
          retry={retry === true}
          onAccepted={(operation) => void navigate({ to: "/operations/$operationId", params: { operationId: operation.id } })}
        />
      )}
    </Page>
  );
}

/** A key of our own: crypto.randomUUID does not exist on plain HTTP. */
function randomKey(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export function CreateForm({ catalog, retry = false, onAccepted }: { catalog: Catalog; retry?: boolean; onAccepted: (operation: Operation) => void }) {
  const client = useQueryClient();
  const [draft, setDraft] = useState<Draft>(() => loadDraft(retry));
  const [touched, setTouched] = useState(draft.hostname !== "");
  const [tried, setTried] = useState(false);
  const attempt = useRef<{ body: string; key: string } | null>(null);
  const { data: machines } = useQuery(queries.machines());
  const taken = useMemo(() => new Set((machines ?? []).filter((machine) => machine.status !== "failed").map((machine) => machine.hostname)), [machines]);
  const [suggestion, setSuggestion] = useState(() => suggestHostname(new Set()));

  const change = (part: Partial<Draft>) => {
    setDraft((before) => {
      const next = { ...before, ...part };
      saveDraft(next);
      return next;
    });
  };

  const usable = (key: string) => catalog.tiers.some((tier) => tier.key === key && tier.allowed && tier.fits !== 0);
  const tierKey = draft.tier !== null && usable(draft.tier) ? draft.tier : (catalog.tiers.find((tier) => usable(tier.key))?.key ?? null);
  const osUsable = (key: string) => catalog.os.some((os) => os.key === key && os.nodes > 0);
  const osKey = draft.os !== null && osUsable(draft.os) ? draft.os : (catalog.os.find((os) => os.nodes > 0)?.key ?? null);
  const tier = catalog.tiers.find((item) => item.key === tierKey);
  const os = catalog.os.find((item) => item.key === osKey);

  const create = useMutation({
    mutationFn: (body: CreateMachine) => {
      const text = JSON.stringify(body);
      // The same request after a lost answer must not create a second machine.
      if (attempt.current?.body !== text) attempt.current = { body: text, key: randomKey() };
      return api.createMachine(body, attempt.current.key);
    },
    onSuccess: (operation) => {
      settleDraft(draft);
      applyEvent(client, { type: "operation", data: operation });
      void client.invalidateQueries({ queryKey: keys.machines });
      onAccepted(operation);
    },
    onError: (error) => {
      const lost = error instanceof ApiError && (error.status === 0 || error.status >= 502);
      if (!lost) attempt.current = null;
    },
  });

  const nameProblem = hostnameProblem(draft.hostname);
  const duplicate = nameProblem === null && taken.has(draft.hostname);
  const refusedName = create.error instanceof ApiError && create.error.field === "hostname" && create.variables?.hostname === draft.hostname ? create.error.message : null;
  const showName = tried || (touched && draft.hostname !== "");
  const hostError = showName ? (nameProblem ?? (duplicate ? "You already have a machine of this name." : refusedName)) : refusedName;
  const offer =
    draft.hostname === ""
      ? suggestion
      : nameProblem !== null
        ? repairHostname(draft.hostname)
        : duplicate || refusedName !== null
          ? nextHostname(draft.hostname, taken)
          : null;

  const key = draft.keyMode === "own" ? checkPublicKey(draft.pubkey) : null;
  const refusedKey = create.error instanceof ApiError && create.error.field === "ssh_pubkey" && create.variables?.ssh_pubkey === draft.pubkey.trim() ? create.error.message : null;
  const keyError = (key !== null && !key.ok && (tried || draft.pubkey !== "") ? key.problem : null) ?? refusedKey;

  const quota = catalog.quota;
  const blocked = !catalog.cluster.reachable
    ? "The cluster does not answer."
    : quota.limit != null && quota.used >= quota.limit
      ? `You use all ${quota.limit} machines of your quota. Delete one first.`
      : tier === undefined
        ? "No size fits the cluster at the moment."
        : os === undefined
          ? "No operating system is ready on any node."
          : null;

  const submit = () => {
    setTried(true);
    if (blocked !== null || create.isPending || tier === undefined || os === undefined) return;
    if (nameProblem !== null || duplicate || (key !== null && !key.ok)) {
      document.querySelector<HTMLElement>("[aria-invalid=true]")?.focus();
      return;
    }
    create.mutate({
      hostname: draft.hostname,
      tier: tier.key,
      os_template: os.key,
      ...(draft.keyMode === "own" ? { ssh_pubkey: draft.pubkey.trim() } : { generate_key: true }),
    });
  };

  return (
    <Form
      className="grid items-start gap-x-10 gap-y-8 xl:grid-cols-[minmax(0,44rem)_minmax(18rem,22rem)]"
      onSubmit={(event) => {
        event.preventDefault();
        submit();
      }}
    >
      <div className="flex min-w-0 flex-col gap-7">
        {!catalog.cluster.reachable ? (
          <Notice tone="wait" title="The cluster does not answer" role="status">
            <p>{catalog.cluster.error ?? "Nothing can be created until it is back."} This page looks again by itself.</p>
          </Notice>
        ) : null}

        <div className="flex flex-col gap-2">
          <Field
            label="Hostname"
            name="hostname"
            mono
            autoFocus
            autoComplete="off"
            maxLength={80}
            value={draft.hostname}
            onChange={(hostname) => {
              change({ hostname });
              setTouched(true);
            }}
            error={hostError}
            description="Letters, digits and hyphens."
            placeholder={suggestion}
          />
          {offer !== null ? (
            <p className="flex items-center gap-1 text-sm text-muted">
              Use
              <AriaButton
                className="rounded-sm px-1 font-mono text-sm text-accent-text data-hovered:bg-hover"
                onPress={() => {
                  change({ hostname: offer });
                  setTouched(true);
                  setSuggestion(suggestHostname(taken));
                }}
              >
                {offer}
              </AriaButton>
            </p>
          ) : null}
        </div>

        <RadioGroup
          value={tierKey}
          onChange={(value) => {
            change({ tier: value });
          }}
          className="flex flex-col gap-2"
        >
          <Label className="text-sm font-medium">Size</Label>
          <div className="grid grid-cols-2 gap-3 sm:grid-cols-4">
            {catalog.tiers.map((item) => {
              const reason = !item.allowed ? (item.reason ?? "Not available to you.") : item.fits === 0 ? (item.reason ?? "No node has room for it now.") : null;
              return (
                <ChoiceCard
                  key={item.key}
                  value={item.key}
                  isDisabled={reason !== null}
                  label={`${tierLabel(item.key)}: ${item.vcpu} vCPU, ${mib(item.mem_mib)} memory, ${item.disk_gib} GiB disk${reason === null ? "" : `. ${reason}`}`}
                  className="min-h-32 gap-2"
                >
                  <span className="flex items-center justify-between gap-2">
                    <span className="font-semibold">{tierLabel(item.key)}</span>
                    {reason !== null ? <LockIcon width={14} height={14} className="text-muted" /> : <ChoiceDot />}
                  </span>
                  <span className={cx("tabular flex flex-col text-sm", reason !== null && "text-muted")}>
                    <span>{item.vcpu} vCPU</span>
                    <span>{mib(item.mem_mib)} memory</span>
                    <span>{item.disk_gib} GiB disk</span>
                  </span>
                  <span className="tabular mt-auto text-xs text-muted">{reason ?? (item.fits == null ? "Room unknown" : `${item.fits} more fit now`)}</span>
                </ChoiceCard>
              );
            })}
          </div>
        </RadioGroup>

        <RadioGroup
          value={osKey}
          onChange={(value) => {
            change({ os: value });
          }}
          className="flex flex-col gap-2"
        >
          <Label className="text-sm font-medium">Operating system</Label>
          <div className="grid gap-3 sm:grid-cols-2">
            {catalog.os.map((item) => (
              <ChoiceCard key={item.key} value={item.key} isDisabled={item.nodes === 0} className="flex-row! items-center gap-3">
                <OsGlyph os={item.key} size={24} />
                <span className="flex min-w-0 flex-1 flex-col">
                  <span className="truncate font-medium">{item.label}</span>
                  <span className="text-xs text-muted">
                    {item.nodes === 0 ? "No node has its template" : `User ${item.user}`}
                  </span>
                </span>
                <ChoiceDot />
              </ChoiceCard>
            ))}
          </div>
        </RadioGroup>

        <RadioGroup
          value={draft.keyMode}
          onChange={(value) => {
            const mode: KeyMode = value === "own" ? "own" : "generate";
            change({ keyMode: mode });
          }}
          className="flex flex-col gap-2"
        >
          <Label className="text-sm font-medium">SSH key</Label>
          <div className="grid gap-3 sm:grid-cols-2">
            <ChoiceCard value="generate" className="gap-0.5">
              <span className="flex items-center justify-between gap-2">
                <span className="font-medium">Generate one</span>
                <ChoiceDot />
              </span>
              <span className="text-xs text-muted">You download the private half once, when the machine is ready.</span>
            </ChoiceCard>
            <ChoiceCard value="own" className="gap-0.5">
              <span className="flex items-center justify-between gap-2">
                <span className="font-medium">Use my own</span>
                <ChoiceDot />
              </span>
              <span className="text-xs text-muted">Paste a public key or choose its file.</span>
            </ChoiceCard>
          </div>
          {draft.keyMode === "own" ? (
            <div className="flex flex-col gap-2 pt-2">
              <Field
                label="Public key"
                rows={3}
                mono
                value={draft.pubkey}
                onChange={(pubkey) => {
                  change({ pubkey });
                }}
                error={keyError}
                placeholder="ssh-ed25519 AAAA… you@laptop"
                description={key?.ok ? `${key.type}${key.comment !== null ? ` · ${key.comment}` : ""}` : "Usually in ~/.ssh/id_ed25519.pub."}
              />
              <div>
                <FileTrigger
                  acceptedFileTypes={[".pub", "text/plain"]}
                  onSelect={(files) => {
                    const file = files?.[0];
                    if (file && file.size <= 16_384) void file.text().then((text) => { change({ pubkey: text.trim() }); });
                  }}
                >
                  <Button size="sm">Choose a file</Button>
                </FileTrigger>
              </div>
            </div>
          ) : null}
        </RadioGroup>

        {create.isError && refusedName === null && refusedKey === null ? <InlineError error={create.error} /> : null}

        <div className="flex flex-wrap items-center gap-2 max-xl:order-last">
          <Button kind="primary" size="lg" type="submit" isPending={create.isPending} pendingLabel="Creating" disabledReason={blocked}>
            Create machine
          </Button>
          <ButtonLink to="/machines" kind="quiet" size="lg">
            Cancel
          </ButtonLink>
          {blocked !== null ? <p className="text-sm text-muted">{blocked}</p> : null}
        </div>
      </div>

      <Plan
        tier={tier ?? null}
        os={os ?? null}
        hostname={draft.hostname === "" || nameProblem !== null ? null : draft.hostname}
        keyMode={draft.keyMode}
        reachable={catalog.cluster.reachable}
      />
    </Form>
  );
}
