import type { ComponentType, SVGProps } from "react";
import { ActivityIcon, AddressIcon, ClusterIcon, GpuIcon, HostIcon, KeyIcon, MachinesIcon, NodesIcon, SandboxIcon, ServiceIcon, SessionIcon, SettingsIcon, TraceIcon } from "~/ui/icons";

export type Section =
  | "/machines"
  | "/sandboxes"
  | "/services"
  | "/sessions"
  | "/gpu"
  | "/access"
  | "/nodes"
  | "/hosts"
  | "/cluster"
  | "/addresses"
  | "/activity"
  | "/traces"
  | "/settings/gpu";

export interface NavItem {
  to: Section;
  label: string;
  short: string;
  icon: ComponentType<SVGProps<SVGSVGElement>>;
}

export const MAIN_NAV: readonly NavItem[] = [
  { to: "/machines", label: "Machines", short: "Machines", icon: MachinesIcon },
  { to: "/sandboxes", label: "Sandboxes", short: "Sandboxes", icon: SandboxIcon },
  { to: "/services", label: "Services", short: "Services", icon: ServiceIcon },
  { to: "/sessions", label: "Sessions", short: "Sessions", icon: SessionIcon },
  { to: "/gpu", label: "GPU", short: "GPU", icon: GpuIcon },
  { to: "/access", label: "Keys and tokens", short: "Access", icon: KeyIcon },
];

export const ADMIN_NAV: readonly NavItem[] = [
  { to: "/nodes", label: "Nodes", short: "Nodes", icon: NodesIcon },
  { to: "/hosts", label: "Hosts", short: "Hosts", icon: HostIcon },
  { to: "/cluster", label: "Cluster", short: "Cluster", icon: ClusterIcon },
  { to: "/addresses", label: "Addresses", short: "Addresses", icon: AddressIcon },
  { to: "/activity", label: "Activity", short: "Activity", icon: ActivityIcon },
  { to: "/traces", label: "Traces", short: "Traces", icon: TraceIcon },
  { to: "/settings/gpu", label: "Settings", short: "Settings", icon: SettingsIcon },
];

/** Sections that show what belongs to a tenant. */
export function isOfTenant(pathname: string): boolean {
  return /^\/(sandboxes|services|sessions|access)(\/|$)/.test(pathname);
}

/** Sections that need no cluster of machines. */
export function needsNoCluster(pathname: string): boolean {
  return isOfTenant(pathname) || /^\/(hosts|cluster|gpu|settings)(\/|$)/.test(pathname);
}
