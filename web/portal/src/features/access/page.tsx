import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { CheckboxGroup } from "react-aria-components/CheckboxGroup";
import { Form } from "react-aria-components/Form";
import { Label } from "react-aria-components/Label";
import { api } from "~/api/endpoints";
import { keys, queries } from "~/api/queries";
import type { NewToken, SessionView, TokenScope, TokenView } from "~/api/types";
import { Page } from "~/app/page";
import { useTenant } from "~/app/tenant";
import { ErrorState, explain, InlineError } from "~/app/problem";
import { Button } from "~/ui/button";
import { Check } from "~/ui/choice";
import { CommandLine } from "~/ui/copy";
import { Dialog, DialogActions } from "~/ui/dialog";
import { Field } from "~/ui/field";
import { until } from "~/ui/format";
import { PlusIcon } from "~/ui/icons";
import { Select } from "~/ui/select";
import { EmptyState, Panel, TableSkeleton } from "~/ui/states";
import { Badge } from "~/ui/status";
import { DataTable, type ColumnDef } from "~/ui/table";
import { Age } from "~/ui/time";
import { notify } from "~/ui/toast";
import { ApiKeys } from "./api-keys";
import { browserName } from "./browser";
import { Secrets } from "./secrets";

function refused(title: string) {
  return (error: Error) => {
    notify({ tone: "bad", title, text: explain(error).what });
  };
}

export function AccessPage() {
  const [creating, setCreating] = useState(false);
  const tenant = useTenant();
  const tokens = useQuery(queries.tokens());
  const sessions = useQuery(queries.browsers());
  const open = () => {
    setCreating(true);
  };
  return (
    <Page title="Keys and tokens" lead="Tokens act for you, API keys for a tenant. Both are for command lines and programs.">
      <section className="flex flex-col gap-3" aria-labelledby="tokens">
        <div className="flex items-center justify-between gap-4">
          <h2 id="tokens" className="text-lg font-semibold">
            Tokens
          </h2>
          {tokens.data !== undefined && tokens.data.length > 0 ? (
            <Button kind="primary" onPress={open}>
              <PlusIcon /> Create token
            </Button>
          ) : null}
        </div>
        <Panel>
          {tokens.data === undefined ? (
            tokens.isError ? (
              <ErrorState error={tokens.error} title="Tokens could not be loaded" onRetry={() => void tokens.refetch()} />
            ) : (
              <TableSkeleton label="tokens" rows={2} />
            )
          ) : tokens.data.length === 0 ? (
            <EmptyState
              title="No tokens yet"
              action={
                <Button kind="primary" onPress={open}>
                  <PlusIcon /> Create token
                </Button>
              }
              command={`nimbus login --url ${window.location.origin}`}
            >
              A token lets the command line or a script act for you, within the scopes you give it, until it expires or you revoke it.
            </EmptyState>
          ) : (
            <DataTable label="Tokens" rows={tokens.data} rowId={(token) => token.id} columns={TOKEN_COLUMNS} empty={null} />
          )}
        </Panel>
      </section>
      <ApiKeys tenant={tenant} />
      <Secrets tenant={tenant} />
      <section className="flex flex-col gap-3" aria-labelledby="browsers">
        <h2 id="browsers" className="text-lg font-semibold">
          Signed-in browsers
        </h2>
        <Panel>
          {sessions.data === undefined ? (
            sessions.isError ? (
              <ErrorState error={sessions.error} title="Browsers could not be loaded" onRetry={() => void sessions.refetch()} />
            ) : (
              <TableSkeleton label="browsers" rows={2} />
            )
          ) : (
            <DataTable
              label="Browsers"
              rows={sessions.data}
              rowId={(session) => session.id}
              columns={SESSION_COLUMNS}
              empty={<p className="px-6 py-8 text-center text-muted">None.</p>}
            />
          )}
        </Panel>
      </section>
      <Dialog
        title="Create token"
        isOpen={creating}
        onClose={() => {
          setCreating(false);
        }}
        wide
      >
        <TokenForm
          onClose={() => {
            setCreating(false);
          }}
        />
      </Dialog>
    </Page>
  );
}

const TOKEN_COLUMNS: ColumnDef<TokenView>[] = [
  {
    id: "name",
    header: "Name",
    rowHeader: true,
    sort: (token) => token.name,
    phone: "title",
    cell: (token) => <span className="font-medium">{token.name}</span>,
  },
  {
    id: "prefix",
    header: "Token",
    phone: "line",
    cell: (token) => <code className="font-mono text-sm text-muted">{token.prefix}…</code>,
  },
  {
    id: "scopes",
    header: "Scopes",
    cell: (token) => (
      <span className="flex flex-wrap gap-1">
        {token.scopes.length === 0 ? <span className="text-muted">none</span> : token.scopes.map((scope) => <Badge key={scope}>{scope}</Badge>)}
      </span>
    ),
  },
  {
    id: "used",
    header: "Last used",
    cell: (token) => <span className="text-muted">{token.last_used_at != null ? <Age at={token.last_used_at} /> : "never"}</span>,
  },
  {
    id: "expires",
    header: "Expires",
    cell: (token) => <span className="text-muted">{token.expires_at != null ? <Expiry at={token.expires_at} /> : "never"}</span>,
  },
  {
    id: "actions",
    header: "Actions",
    hideHeader: true,
    phone: "aside",
    className: "text-right",
    cell: (token) => <RevokeToken token={token} />,
  },
];

function Expiry({ at }: { at: string }) {
  const [now] = useState(Date.now);
  return <time dateTime={at}>{until(at, now)}</time>;
}

function RevokeToken({ token }: { token: TokenView }) {
  const client = useQueryClient();
  const [asking, setAsking] = useState(false);
  const revoke = useMutation({
    mutationFn: () => api.revokeToken(token.id),
    onSuccess: () => {
      client.setQueryData<TokenView[]>(keys.tokens, (list) => list?.filter((item) => item.id !== token.id));
    },
    onError: refused("The token was not revoked"),
  });
  return (
    <>
      <Button
        size="sm"
        kind="quiet"
        aria-label={`Revoke ${token.name}`}
        onPress={() => {
          setAsking(true);
        }}
      >
        Revoke
      </Button>
      <Dialog
        title={`Revoke ${token.name}`}
        role="alertdialog"
        isOpen={asking}
        onClose={() => {
          setAsking(false);
        }}
      >
        <p>Whatever uses this token is refused from now on. A revoked token cannot be brought back.</p>
        <DialogActions>
          <Button
            onPress={() => {
              setAsking(false);
            }}
          >
            Cancel
          </Button>
          <Button
            kind="danger"
            isPending={revoke.isPending}
            pendingLabel="Revoking"
            onPress={() => {
              revoke.mutate();
            }}
          >
            Revoke token
          </Button>
        </DialogActions>
      </Dialog>
    </>
  );
}

const SESSION_COLUMNS: ColumnDef<SessionView>[] = [
  {
    id: "browser",
    header: "Browser",
    rowHeader: true,
    phone: "title",
    cell: (session) => (
      <span className="inline-flex items-center gap-2">
        <span className="font-medium" title={session.user_agent}>
          {browserName(session.user_agent)}
        </span>
        {session.current ? <Badge tone="good">this one</Badge> : null}
      </span>
    ),
  },
  {
    id: "address",
    header: "Address",
    phone: "line",
    cell: (session) => <code className="font-mono text-sm text-muted">{session.address === "" ? "unknown" : session.address}</code>,
  },
  {
    id: "since",
    header: "Signed in",
    cell: (session) => (
      <span className="text-muted">
        <Age at={session.created_at} />
      </span>
    ),
  },
  {
    id: "expires",
    header: "Expires",
    cell: (session) => (
      <span className="text-muted">
        <Expiry at={session.expires_at} />
      </span>
    ),
  },
  {
    id: "actions",
    header: "Actions",
    hideHeader: true,
    phone: "aside",
    className: "text-right",
    cell: (session) => (session.current ? null : <RevokeSession session={session} />),
  },
];

function RevokeSession({ session }: { session: SessionView }) {
  const client = useQueryClient();
  const revoke = useMutation({
    mutationFn: () => api.revokeBrowser(session.id),
    onSuccess: () => {
      client.setQueryData<SessionView[]>(keys.browsers, (list) => list?.filter((item) => item.id !== session.id));
    },
    onError: refused("The browser was not signed out"),
  });
  return (
    <Button
      size="sm"
      kind="quiet"
      aria-label={`Sign out ${browserName(session.user_agent)}`}
      isPending={revoke.isPending}
      onPress={() => {
        revoke.mutate();
      }}
    >
      Sign out
    </Button>
  );
}

const SCOPES: readonly { key: TokenScope; label: string; text: string; admin?: boolean }[] = [
  { key: "machines:read", label: "Read machines", text: "List machines, operations and what can be created." },
  { key: "machines:write", label: "Change machines", text: "Create, start, stop and delete machines." },
  { key: "workloads:read", label: "Read workloads", text: "List sandboxes, services and sessions." },
  { key: "workloads:write", label: "Change workloads", text: "Create and use sandboxes, services and sessions." },
  { key: "gpu", label: "Use GPUs", text: "Submit GPU jobs and ask models." },
  { key: "admin", label: "Administer", text: "Everything an administrator may do.", admin: true },
];

const LIFETIMES = [
  { key: "7", label: "7 days" },
  { key: "30", label: "30 days" },
  { key: "90", label: "90 days" },
  { key: "365", label: "1 year" },
  { key: "never", label: "Never" },
] as const;

function TokenForm({ onClose }: { onClose: () => void }) {
  const client = useQueryClient();
  const { data: me } = useQuery(queries.me());
  const [name, setName] = useState("");
  const [scopes, setScopes] = useState<TokenScope[]>(["machines:read", "machines:write"]);
  const [lifetime, setLifetime] = useState<(typeof LIFETIMES)[number]["key"]>("90");
  const [tried, setTried] = useState(false);
  const create = useMutation({
    mutationFn: () => api.createToken({ name: name.trim(), scopes, expires_in_days: lifetime === "never" ? null : Number(lifetime) }),
    onSuccess: () => client.invalidateQueries({ queryKey: keys.tokens }),
  });
  if (create.data !== undefined) return <TokenShown token={create.data} onClose={onClose} />;
  return (
    <Form
      className="flex flex-col gap-5"
      onSubmit={(event) => {
        event.preventDefault();
        setTried(true);
        if (name.trim() !== "" && scopes.length > 0 && !create.isPending) create.mutate();
      }}
    >
      <Field
        label="Name"
        value={name}
        onChange={setName}
        autoFocus
        maxLength={64}
        autoComplete="off"
        placeholder="laptop"
        description="What it is for, so that you know later which one to revoke."
        error={tried && name.trim() === "" ? "Enter a name." : null}
      />
      <CheckboxGroup
        value={scopes}
        onChange={(values) => {
          setScopes(SCOPES.map((scope) => scope.key).filter((key) => values.includes(key)));
        }}
        className="flex flex-col gap-2"
      >
        <Label className="text-sm font-medium">Scopes</Label>
        {SCOPES.filter((scope) => scope.admin !== true || me?.is_admin === true).map((scope) => (
          <Check key={scope.key} value={scope.key} label={scope.label} text={scope.text} />
        ))}
        {tried && scopes.length === 0 ? <p className="text-xs font-medium text-bad-text">Choose at least one.</p> : null}
      </CheckboxGroup>
      <Select label="Expires after" options={LIFETIMES} value={lifetime} onChange={setLifetime} className="max-w-40" />
      {create.isError ? <InlineError error={create.error} /> : null}
      <DialogActions>
        <Button onPress={onClose}>Cancel</Button>
        <Button kind="primary" type="submit" isPending={create.isPending} pendingLabel="Creating">
          Create token
        </Button>
      </DialogActions>
    </Form>
  );
}

function TokenShown({ token, onClose }: { token: NewToken; onClose: () => void }) {
  return (
    <div className="flex flex-col gap-4">
      <p>
        This is <span className="font-semibold">{token.name}</span>. It is shown only now; Nimbus keeps a hash of it and cannot show it again.
      </p>
      <CommandLine command={token.token} label="token" plain />
      <div className="flex flex-col gap-1.5">
        <p className="text-xs text-muted">Use it in a script</p>
        <CommandLine command={`NIMBUS_URL=${window.location.origin} NIMBUS_TOKEN=${token.token} nimbus vm list`} label="example command" wrap />
      </div>
      <DialogActions>
        <Button kind="primary" onPress={onClose}>
          Done
        </Button>
      </DialogActions>
    </div>
  );
}
