import { lazy, Suspense, useState, type ReactNode } from "react";
import { CheckboxGroup } from "react-aria-components/CheckboxGroup";
import { RadioGroup } from "react-aria-components/RadioGroup";
import { ApiError } from "~/api/client";
import { setTheme, THEMES, useTheme } from "~/app/theme";
import { ErrorState, InlineError } from "~/app/problem";
import { fault } from "~/mocks/fault";
import * as data from "~/mocks/data";
import { stepItems } from "~/features/operations/steps";
import { extent, slowest, waterfall } from "~/features/traces/model";
import { Waterfall } from "~/features/traces/waterfall";
import { Button, IconButton } from "~/ui/button";
import { CodeBlock } from "~/ui/code";
import { Combo } from "~/ui/combo";
import { Check, ChoiceCard, ChoiceDot } from "~/ui/choice";
import { CommandLine, Copyable } from "~/ui/copy";
import { Dialog, DialogActions } from "~/ui/dialog";
import { Facts } from "~/ui/facts";
import { Fold } from "~/ui/fold";
import { LogView } from "~/ui/log-view";
import { Progress } from "~/ui/progress";
import { Screen } from "~/ui/screen";
import { Switch } from "~/ui/switch";
import { Tabs } from "~/ui/tabs";
import { Field } from "~/ui/field";
import { Filter } from "~/ui/filter";
import { MoreIcon, NimbusMark, OsGlyph, PlusIcon } from "~/ui/icons";
import { Menu } from "~/ui/menu";
import { Meter } from "~/ui/meter";
import { Segments } from "~/ui/segments";
import { Select } from "~/ui/select";
import { EmptyState, Panel, TableSkeleton } from "~/ui/states";
import { Badge, Notice, StatusDot, type Tone } from "~/ui/status";
import { Steps } from "~/ui/steps";
import { DataTable } from "~/ui/table";
import { notify } from "~/ui/toast";

const TONES: readonly Tone[] = ["good", "wait", "bad", "info", "idle"];
const refused = new ApiError(409, "No node has room for a large machine.", fault("machine.no_capacity", "No node has room for a large machine."));
const nothing = () => undefined;
const Terminal = lazy(() => import("~/ui/terminal"));
const LOG = Array.from({ length: 40 }, (_, index) => ({
  id: index,
  at: new Date(data.NOW + index * 1000).toISOString(),
  loud: index % 13 === 12,
  text: index % 13 === 12 ? "\x1b[31merror\x1b[0m: the answer took 4.2 s" : `\x1b[2m${index}\x1b[0m GET /health \x1b[32m200\x1b[0m`,
}));

function paint(): Screen {
  const screen = new Screen();
  screen.write("/ # \x1b[1mls --color\x1b[0m\r\n\x1b[34mapp\x1b[0m  notes.txt  \x1b[36msh\x1b[0m\r\n\x1b[31mred\x1b[0m \x1b[32mgreen\x1b[0m \x1b[33myellow\x1b[0m \x1b[35mmagenta\x1b[0m\r\n/ # ");
  screen.remark("A remark of the page.");
  return screen;
}

function Part({ name, children }: { name: string; children: ReactNode }) {
  return (
    <section className="flex flex-col gap-3 border-t border-line pt-5">
      <h2 className="text-lg font-semibold">{name}</h2>
      {children}
    </section>
  );
}

function Line({ children }: { children: ReactNode }) {
  return <div className="flex flex-wrap items-center gap-3">{children}</div>;
}

/** Every part in every state. Exists in development builds only; screenshots are taken of it. */
export function GalleryPage() {
  const theme = useTheme();
  const [text, setText] = useState("Web Server");
  const [segment, setSegment] = useState<"a" | "b" | "c">("a");
  const [choice, setChoice] = useState<string>("a");
  const [option, setOption] = useState<"x" | "y">("x");
  const [open, setOpen] = useState(false);
  const [tab, setTab] = useState("one");
  const [image, setImage] = useState("");
  const [on, setOn] = useState(true);
  const [screen] = useState(paint);
  const rows = waterfall(data.trace.spans);
  const span = extent(data.trace.spans);
  return (
    <main className="mx-auto flex max-w-5xl flex-col gap-8 p-6 pb-20">
      <header className="flex flex-wrap items-center justify-between gap-4">
        <h1 className="flex items-center gap-3 text-xl font-semibold">
          <NimbusMark /> Parts
        </h1>
        <Segments label="Appearance" options={THEMES} value={theme} onChange={setTheme} />
      </header>

      <Part name="Button">
        {(["primary", "default", "quiet", "danger"] as const).map((kind) => (
          <Line key={kind}>
            <Button kind={kind} size="sm">
              Small
            </Button>
            <Button kind={kind}>Medium</Button>
            <Button kind={kind} size="lg">
              <PlusIcon /> Large
            </Button>
            <Button kind={kind} isPending pendingLabel="Creating">
              Create
            </Button>
            <Button kind={kind} disabledReason="The cluster does not answer.">
              Refused
            </Button>
          </Line>
        ))}
        <Line>
          <IconButton label="More">
            <MoreIcon />
          </IconButton>
          <Menu
            label="Example"
            entries={[
              { type: "item", id: "a", label: "Start", onAction: nothing },
              { type: "item", id: "b", label: "Reboot", reason: "The machine is not running.", onAction: nothing },
              { type: "line", id: "l" },
              { type: "item", id: "c", label: "Delete", danger: true, onAction: nothing },
            ]}
          >
            <Button>Menu</Button>
          </Menu>
          <Button
            onPress={() => {
              setOpen(true);
            }}
          >
            Dialog
          </Button>
          {(["info", "good", "bad"] as const).map((tone) => (
            <Button
              key={tone}
              onPress={() => {
                notify({ tone, title: `A ${tone} notice`, text: "With one line that explains it." });
              }}
            >
              Toast: {tone}
            </Button>
          ))}
        </Line>
        <Dialog
          title="A dialog"
          isOpen={open}
          onClose={() => {
            setOpen(false);
          }}
        >
          <p>What it is about, in a sentence or two.</p>
          <DialogActions>
            <Button
              onPress={() => {
                setOpen(false);
              }}
            >
              Cancel
            </Button>
            <Button kind="danger">Delete machine</Button>
          </DialogActions>
        </Dialog>
      </Part>

      <Part name="Field">
        <div className="grid gap-5 sm:grid-cols-2">
          <Field label="Empty" placeholder="calm-heron" description="With a description." />
          <Field label="Wrong" value={text} onChange={setText} mono error="Use lower case letters." />
          <Field label="Password" type="password" defaultValue="secret" />
          <Field label="Disabled" isDisabled defaultValue="fixed" />
          <Field label="Long" rows={3} mono placeholder="ssh-ed25519 AAAA…" />
          <Select
            label="Select"
            value={option}
            onChange={setOption}
            options={[
              { key: "x", label: "One" },
              { key: "y", label: "Two" },
            ]}
          />
        </div>
        <Line>
          <Filter label="Filter parts" value="" onChange={nothing} />
          <Segments
            label="Segments"
            value={segment}
            onChange={setSegment}
            options={[
              { key: "a", label: "All", count: 201 },
              { key: "b", label: "Free", count: 194 },
              { key: "c", label: "Taken", count: 7 },
            ]}
          />
        </Line>
        <RadioGroup aria-label="Cards" value={choice} onChange={setChoice} className="grid gap-3 sm:grid-cols-3">
          {["a", "b", "c"].map((value) => (
            <ChoiceCard key={value} value={value} isDisabled={value === "c"}>
              <span className="flex items-center justify-between">
                Choice {value} <ChoiceDot />
              </span>
            </ChoiceCard>
          ))}
        </RadioGroup>
        <CheckboxGroup aria-label="Boxes" defaultValue={["a"]} className="flex flex-col gap-2">
          <Check value="a" label="Ticked" text="With what it means." />
          <Check value="b" label="Not ticked" text="With what it means." />
        </CheckboxGroup>
      </Part>

      <Part name="State">
        <Line>
          {TONES.map((tone) => (
            <StatusDot key={tone} tone={tone} moving={tone === "info"}>
              {tone}
            </StatusDot>
          ))}
          {TONES.map((tone) => (
            <Badge key={tone} tone={tone}>
              {tone}
            </Badge>
          ))}
          {["ubuntu-24.04", "debian-12", "other"].map((os) => (
            <OsGlyph key={os} os={os} size={24} />
          ))}
        </Line>
        {(["good", "wait", "bad", "info"] as const).map((tone) => (
          <Notice key={tone} tone={tone} title={`A ${tone} notice`}>
            <p>With one line that explains it.</p>
          </Notice>
        ))}
        <InlineError error={refused} />
      </Part>

      <Part name="Copy">
        <CommandLine command="ssh -i ~/.ssh/nimbus-web ubuntu@10.77.0.51" label="SSH command" large />
        <CommandLine command="nimbus vm create web-1 --tier small --os ubuntu-24.04" label="create command" />
        <Line>
          <Copyable text="10.77.0.51" label="Copy address" />
          <Copyable text={data.me.id} shown="usr_0196…e6f7" label="Copy id" />
        </Line>
      </Part>

      <Part name="Steps">
        <div className="grid gap-5 md:grid-cols-3">
          {[data.provision(4), data.provision(9), data.provision(2, { state: "failed", failAt: 2 })].map((operation, index) => (
            <Panel key={index} className="px-5 py-3">
              <Steps steps={stepItems(operation.steps)} now={data.NOW} label={`Progress ${index + 1}`} />
            </Panel>
          ))}
        </div>
      </Part>

      <Part name="Meter and facts">
        <div className="grid gap-6 sm:grid-cols-3">
          <Meter label="Calm" used={20} committed={30} total={100} text="20 GiB used · 30 GiB promised" />
          <Meter label="Promised out" used={60} committed={95} total={100} text="60 GiB used · 95 GiB promised" />
          <Meter label="Full" used={96} total={100} text="96 % busy" />
        </div>
        <Facts
          items={[
            { label: "Address", value: <Copyable text="10.77.0.51" label="Copy this address" /> },
            { label: "Size", value: "2 vCPU · 2 GiB · 30 GiB" },
          ]}
        />
      </Part>

      <Part name="Table">
        <Panel>
          <DataTable
            label="Example table"
            rows={data.tokens()}
            rowId={(row) => row.id}
            empty={null}
            columns={[
              { id: "name", header: "Name", rowHeader: true, phone: "title", sort: (row) => row.name, cell: (row) => row.name },
              { id: "prefix", header: "Token", phone: "line", cell: (row) => <code className="font-mono">{row.prefix}</code> },
            ]}
          />
        </Panel>
        <Panel>
          <TableSkeleton label="example" rows={3} />
        </Panel>
        <Panel>
          <EmptyState title="Nothing yet" action={<Button kind="primary">Create</Button>} command="nimbus vm create web-1">
            What this is, and what to do next.
          </EmptyState>
        </Panel>
        <Panel>
          <ErrorState error={refused} onRetry={nothing} />
        </Panel>
      </Part>

      <Part name="Tabs, folds and odd fields">
        <Panel>
          <Tabs
            label="Example tabs"
            value={tab}
            onChange={setTab}
            tabs={[
              { key: "one", label: "First", content: <p className="p-4">One.</p> },
              { key: "two", label: "Second", count: 3, content: <p className="p-4">Two.</p> },
            ]}
          />
        </Panel>
        <Panel>
          <Fold title="Resources" summary="the tenant's defaults">
            <Combo label="Image" mono value={image} onChange={setImage} suggestions={[{ key: "python:3.12-slim", hint: "Python" }, { key: "busybox:1" }]} />
          </Fold>
          <Fold title="More" summary="none" defaultExpanded>
            <Switch label="A switch" isSelected={on} onChange={setOn} />
            <Progress label="Upload" part={0.4} text="4 of 10 MiB" />
          </Fold>
        </Panel>
        <CodeBlock text={"const sandbox = await nimbus.sandboxes.create({\n  profile: \"worker\",\n});"} label="snippet" />
      </Part>

      <Part name="Terminal and log">
        <Panel className="flex h-60">
          <Suspense fallback={null}>
            <Terminal label="Example terminal" screen={screen} onInput={(typed) => { screen.write(typed); }} onSize={nothing} />
          </Suspense>
        </Panel>
        <Panel>
          <LogView label="example log" rows={LOG} empty="Nothing was written yet." />
        </Panel>
        <Panel>
          <LogView label="empty log" rows={[]} empty="Nothing was written yet." />
        </Panel>
      </Part>

      <Part name="Waterfall">
        <Panel>
          <Waterfall rows={rows} from={span.from} to={span.to} slowestId={slowest(rows)?.span.span_id ?? null} />
        </Panel>
      </Part>
    </main>
  );
}
