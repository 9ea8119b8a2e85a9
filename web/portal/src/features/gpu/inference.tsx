import { useQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { useState } from "react";
import type { Inference } from "~/api/gpu";
import { queries } from "~/api/queries";
import { Page } from "~/app/page";
import { ErrorState } from "~/app/problem";
import { TEXT_LINK } from "~/features/auth/frame";
import { StaleNote } from "~/features/work/parts";
import { ButtonLink } from "~/ui/button";
import { CodeBlock } from "~/ui/code";
import { CommandLine } from "~/ui/copy";
import { Segments } from "~/ui/segments";
import { Bone, EmptyState, Panel } from "~/ui/states";
import { Notice, StatusDot } from "~/ui/status";
import { Age } from "~/ui/time";
import { NotPaired } from "./not-paired";
import { GpuTabs, useViewer } from "./parts";
import { Playground } from "./playground";
import { chatSnippets } from "./snippets";

const REFRESH_MS = 10_000;

export function GpuPage() {
  const { data, error, isError, refetch } = useQuery({ ...queries.gpuInference(), refetchInterval: REFRESH_MS });
  const { admin } = useViewer();
  return (
    <Page title="GPU" lead="Models that answer like OpenAI’s, and jobs on boxes with a GPU.">
      <GpuTabs />
      {data === undefined ? (
        <Panel>
          {isError ? (
            <ErrorState error={error} title="The state of inference could not be loaded" onRetry={() => void refetch()} />
          ) : (
            <div role="status" aria-label="Loading inference" className="flex flex-col gap-4 p-5">
              <Bone className="h-4 w-40" />
              <Bone className="h-8 w-full" />
            </div>
          )}
        </Panel>
      ) : !data.enabled || data.status === "unconfigured" ? (
        <Panel>
          <Absent data={data} admin={admin} />
        </Panel>
      ) : (
        <Present data={data} admin={admin} />
      )}
      {data !== undefined && isError ? <StaleNote what="This page" /> : null}
    </Page>
  );
}

function Absent({ data, admin }: { data: Inference; admin: boolean }) {
  const workers = useQuery(queries.gpuWorkers());
  const action = (
    <ButtonLink to="/settings/gpu" kind="primary">
      Open settings
    </ButtonLink>
  );
  if (!data.enabled && data.status !== "unconfigured") {
    return (
      <EmptyState title="GPUs are switched off" action={admin ? action : null}>
        {admin ? "Boxes are paired; switch their use on in the settings." : "An administrator has switched their use off."}
      </EmptyState>
    );
  }
  if (workers.data !== undefined && workers.data.length > 0) {
    return (
      <EmptyState title="No model is served" action={admin ? action : null}>
        {admin ? "Boxes are paired and take jobs, but none of them serves a model. Set the endpoint in the settings." : "Boxes take jobs, but none of them serves a model."}
      </EmptyState>
    );
  }
  return <NotPaired admin={admin} what="Models answer on a box with a GPU." />;
}

function Present({ data, admin }: { data: Inference; admin: boolean }) {
  const base = data.base_url ?? `${window.location.origin}/api/gpu/v1`;
  const models = data.models.length > 0 ? data.models : data.model === null ? [] : [data.model];
  const isUp = data.status === "up";
  return (
    <>
      {isUp ? null : (
        <Notice tone="wait" title="The endpoint does not answer" role="status">
          <p>
            {admin ? "See on the box whether nimbus-vllm.service runs; a large model takes minutes to load after a start." : "It may be starting. What is asked of it now is refused."}
          </p>
        </Notice>
      )}
      <div className="grid min-w-0 items-start gap-4 xl:grid-cols-2">
        <div className="flex min-w-0 flex-col gap-4">
          <Panel label="Endpoint">
            <div className="flex flex-col gap-4 p-4">
              <div className="flex flex-wrap items-center justify-between gap-3">
                <h2 className="font-semibold">Endpoint</h2>
                <span className="flex flex-wrap items-center gap-x-3 text-sm">
                  <StatusDot tone={isUp ? "good" : "bad"}>{isUp ? "Up" : "Down"}</StatusDot>
                  {data.checked_at !== null ? (
                    <span className="text-muted">
                      asked <Age at={data.checked_at} />
                    </span>
                  ) : null}
                </span>
              </div>
              <CommandLine command={base} label="base URL" plain />
              {models.length > 0 ? (
                <div className="flex flex-col gap-1.5">
                  <h3 className="text-sm font-medium">Models</h3>
                  <ul aria-label="Models" className="flex flex-col gap-1.5">
                    {models.map((model) => (
                      <li key={model}>
                        <CommandLine command={model} label={`model ${model}`} plain />
                      </li>
                    ))}
                  </ul>
                </div>
              ) : (
                <p className="text-sm text-muted">It does not say which models it serves.</p>
              )}
            </div>
          </Panel>
          <Snippets base={base} model={data.model ?? models[0] ?? "default"} />
        </div>
        <Playground models={models} refusal={isUp ? (models.length === 0 ? "There is no model to ask." : null) : "The endpoint does not answer."} />
      </div>
    </>
  );
}

const KINDS = [
  { key: "curl", label: "curl" },
  { key: "python", label: "Python" },
  { key: "js", label: "JavaScript" },
] as const;

function Snippets({ base, model }: { base: string; model: string }) {
  const [kind, setKind] = useState<(typeof KINDS)[number]["key"]>("curl");
  return (
    <Panel label="From a program">
      <div className="flex min-w-0 flex-col gap-3 p-4">
        <div className="flex flex-wrap items-center justify-between gap-3">
          <h2 className="font-semibold">From a program</h2>
          <Segments label="Language" options={KINDS} value={kind} onChange={setKind} />
        </div>
        <CodeBlock text={chatSnippets(base, model)[kind]} label={`${KINDS.find((item) => item.key === kind)?.label ?? ""} snippet`} />
        <p className="text-sm text-muted">
          The key is a{" "}
          <Link to="/access" className={TEXT_LINK}>
            token
          </Link>{" "}
          of yours with the scope gpu. On machines made here <code className="font-mono">OPENAI_BASE_URL</code> and <code className="font-mono">OPENAI_API_KEY</code> are set already.
        </p>
      </div>
    </Panel>
  );
}
