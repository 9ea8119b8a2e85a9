import type { ComponentType, SVGProps } from "react";
import { ActivityIcon, AddressIcon, KeyIcon, MachinesIcon, NodesIcon, TraceIcon } from "~/ui/icons";

export interface NavItem {
  to: "/machines" | "/access" | "/nodes" | "/addresses" | "/activity" | "/traces";
  label: string;
  short: string;
  icon: ComponentType<SVGProps<SVGSVGElement>>;
}

export const MAIN_NAV: readonly NavItem[] = [
  { to: "/machines", label: "Machines", short: "Machines", icon: MachinesIcon },
  { to: "/access", label: "Keys and tokens", short: "Access", icon: KeyIcon },
];

export const ADMIN_NAV: readonly NavItem[] = [
  { to: "/nodes", label: "Nodes", short: "Nodes", icon: NodesIcon },
  { to: "/addresses", label: "Addresses", short: "Addresses", icon: AddressIcon },
  { to: "/activity", label: "Activity", short: "Activity", icon: ActivityIcon },
  { to: "/traces", label: "Traces", short: "Traces", icon: TraceIcon },
];
