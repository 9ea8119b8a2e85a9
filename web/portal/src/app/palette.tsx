import { useQuery } from "@tanstack/react-query";
import { useNavigate } from "@tanstack/react-router";
import { Autocomplete, useFilter } from "react-aria-components/Autocomplete";
import { Dialog } from "react-aria-components/Dialog";
import { Header } from "react-aria-components/Header";
import { Input } from "react-aria-components/Input";
import { Menu, MenuItem, MenuSection } from "react-aria-components/Menu";
import { Modal, ModalOverlay } from "react-aria-components/Modal";
import { SearchField } from "react-aria-components/SearchField";
import { queries } from "~/api/queries";
import { sshCommand } from "~/features/machines/ssh";
import { imageName, imageOf, sandboxName, shortTail } from "~/features/sandboxes/name";
import { LIFECYCLE } from "~/features/work/rules";
import { copyText } from "~/ui/clipboard";
import { SearchIcon } from "~/ui/icons";
import { notify } from "~/ui/toast";
import { ADMIN_NAV, MAIN_NAV } from "./nav";
import { usePersonalTenant, useSwitchTenant, useTenant } from "./tenant";
import { setTheme, THEMES } from "./theme";

interface Entry {
  id: string;
  label: string;
  hint?: string;
  run: () => void;
}

/** Go anywhere, create, and act on a machine, without the mouse. */
export default function Palette({ admin, onClose }: { admin: boolean; onClose: () => void }) {
  const navigate = useNavigate();
  const { contains } = useFilter({ sensitivity: "base" });
  const tenant = useTenant();
  const personal = usePersonalTenant();
  const switchTenant = useSwitchTenant();
  const { data: machines } = useQuery(queries.machines());
  const { data: sandboxes } = useQuery(queries.sandboxes(tenant));
  const { data: services } = useQuery(queries.services(tenant));
  const { data: tenants } = useQuery(queries.tenants());

  const goto: Entry[] = [
    ...[...MAIN_NAV, ...(admin ? ADMIN_NAV : [])].map((item) => ({
      id: `go${item.to}`,
      label: item.label,
      run: () => void navigate({ to: item.to }),
    })),
    { id: "go/gpu/jobs", label: "GPU jobs", run: () => void navigate({ to: "/gpu/jobs" }) },
    { id: "go/gpu/workers", label: "GPU workers", run: () => void navigate({ to: "/gpu/workers" }) },
  ];
  const act: Entry[] = [
    { id: "create", label: "Create machine", run: () => void navigate({ to: "/machines/new" }) },
    { id: "create-sandbox", label: "Create sandbox", run: () => void navigate({ to: "/sandboxes/new" }) },
    { id: "create-service", label: "Create service", run: () => void navigate({ to: "/services/new" }) },
    { id: "submit-job", label: "Submit GPU job", run: () => void navigate({ to: "/gpu/jobs/new" }) },
  ];
  const looks: Entry[] = THEMES.map((theme) => ({
    id: `theme-${theme.key}`,
    label: `Appearance: ${theme.label.toLowerCase()}`,
    run: () => {
      setTheme(theme.key);
    },
  }));
  const open: Entry[] = (machines ?? []).slice(0, 200).flatMap((machine) => {
    const entries: Entry[] = [
      {
        id: `m-${machine.ID}`,
        label: machine.hostname,
        hint: machine.ip ?? machine.status,
        run: () => void navigate({ to: "/machines/$machineId", params: { machineId: machine.ID } }),
      },
    ];
    const command = sshCommand(machine);
    if (command !== null) {
      entries.push({
        id: `ssh-${machine.ID}`,
        label: `Copy SSH command of ${machine.hostname}`,
        run: () => {
          void copyText(command).then(() => {
            notify({ tone: "good", title: "SSH command copied", text: command });
          });
        },
      });
    }
    return entries;
  });
  const inTenant: Entry[] = [
    ...(sandboxes ?? []).slice(0, 200).map((sandbox) => ({
      id: `s-${sandbox.metadata.id}`,
      label: `${sandboxName(sandbox)} ${shortTail(sandbox.metadata.id)}`,
      hint: `${imageName(imageOf(sandbox) ?? "")} ${LIFECYCLE[sandbox.status.lifecycleState].label.toLowerCase()}`,
      run: () => void navigate({ to: "/sandboxes/$sandboxId", params: { sandboxId: sandbox.metadata.id } }),
    })),
    ...(services ?? []).slice(0, 200).map((service) => ({
      id: `v-${service.metadata.name}`,
      label: service.metadata.name,
      hint: `service ${LIFECYCLE[service.status.lifecycleState].label.toLowerCase()}`,
      run: () => void navigate({ to: "/services/$serviceName", params: { serviceName: service.metadata.name } }),
    })),
  ];
  const others: Entry[] = [personal, ...(tenants ?? []).filter((id) => id !== personal)]
    .filter((id) => id !== tenant)
    .map((id) => ({
      id: `t-${id}`,
      label: `Switch to ${id === personal ? "the personal tenant" : `tenant ${id}`}`,
      run: () => {
        switchTenant(id);
      },
    }));
  const sections = [
    { id: "act", title: "Do", entries: act },
    { id: "go", title: "Go to", entries: goto },
    { id: "machines", title: "Machines", entries: open },
    { id: "workloads", title: "Sandboxes and services", entries: inTenant },
    { id: "tenants", title: "Tenants", entries: others },
    { id: "looks", title: "Appearance", entries: looks },
  ].filter((section) => section.entries.length > 0);
  const all = sections.flatMap((section) => section.entries);

  return (
    <ModalOverlay
      isOpen
      isDismissable
      onOpenChange={(isOpen) => {
        if (!isOpen) onClose();
      }}
      className="fixed inset-0 z-50 flex items-start justify-center bg-black/40 px-3 pt-[12vh] data-entering:animate-fade"
    >
      <Modal className="w-full max-w-lg overflow-hidden rounded-lg bg-panel shadow-float data-entering:animate-rise">
        <Dialog aria-label="Search and commands" className="flex flex-col outline-none">
          <div
            className="contents"
            onKeyDownCapture={(event) => {
              // A search field would keep the first press to clear itself.
              if (event.key !== "Escape" || event.nativeEvent.isComposing) return;
              event.stopPropagation();
              onClose();
            }}
          >
          <Autocomplete filter={contains}>
            <SearchField aria-label="Search" autoFocus className="flex h-12 items-center gap-3 border-b border-line px-4">
              <SearchIcon className="shrink-0 text-muted" />
              <Input
                placeholder="Go to, create, or find something"
                className="min-w-0 flex-1 bg-transparent text-base outline-none placeholder:text-muted [&::-webkit-search-cancel-button]:hidden"
              />
              <kbd aria-hidden="true" className="rounded-sm border border-line px-1.5 font-mono text-xs text-muted">
                Esc
              </kbd>
            </SearchField>
            <div tabIndex={0} role="group" aria-label="Results" className="max-h-[min(24rem,55vh)] overflow-auto data-focus-visible:-outline-offset-2">
            <Menu
              aria-label="Results"
              className="p-1.5 outline-none"
              onAction={(key) => {
                onClose();
                all.find((entry) => entry.id === key)?.run();
              }}
              renderEmptyState={() => <p className="px-3 py-6 text-center text-sm text-muted">Nothing matches.</p>}
            >
              {sections.map((section) => (
                <MenuSection key={section.id} id={section.id}>
                  <Header className="px-2.5 pt-2 pb-1 text-xs font-medium text-muted">{section.title}</Header>
                  {section.entries.map((entry) => (
                    <MenuItem
                      key={entry.id}
                      id={entry.id}
                      textValue={entry.hint === undefined ? entry.label : `${entry.label} ${entry.hint}`}
                      className="flex h-9 cursor-pointer items-center justify-between gap-4 rounded px-2.5 text-sm outline-none data-focused:bg-accent-soft data-focused:text-accent-strong"
                    >
                      <span className="truncate">{entry.label}</span>
                      {entry.hint !== undefined ? <span className="font-mono text-xs text-muted">{entry.hint}</span> : null}
                    </MenuItem>
                  ))}
                </MenuSection>
              ))}
            </Menu>
            </div>
          </Autocomplete>
          </div>
        </Dialog>
      </Modal>
    </ModalOverlay>
  );
}
