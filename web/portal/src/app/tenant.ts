import { getRouteApi, useNavigate, useSearch } from "@tanstack/react-router";

const KEY = "nimbus-tenant";
const session = getRouteApi("/session");

/** The tenant that was looked at last; null is the personal one. */
export function chosenTenant(): string | null {
  try {
    return localStorage.getItem(KEY);
  } catch {
    return null;
  }
}

export function chooseTenant(tenant: string | null): void {
  try {
    if (tenant === null) localStorage.removeItem(KEY);
    else localStorage.setItem(KEY, tenant);
  } catch {
    // Without storage the address alone says which tenant is meant.
  }
}

/** What the address says, else what was chosen last, else the personal tenant. */
export function useTenant(): string {
  const { me } = session.useRouteContext();
  const search = useSearch({ strict: false });
  return search.tenant ?? chosenTenant() ?? me.tenant_id;
}

export function usePersonalTenant(): string {
  return session.useRouteContext().me.tenant_id;
}

export function tenantName(tenant: string, personal: string): string {
  return tenant === personal ? "Personal" : tenant;
}

/** Goes to the same section of another tenant: what is open belongs to this one. */
export function useSwitchTenant(): (tenant: string) => void {
  const navigate = useNavigate();
  const personal = usePersonalTenant();
  return (tenant) => {
    const other = tenant === personal ? null : tenant;
    chooseTenant(other);
    const [section = ""] = window.location.pathname.split("/").filter((part) => part !== "");
    const to = section === "services" ? "/services" : section === "sessions" ? "/sessions" : section === "access" ? "/access" : "/sandboxes";
    void navigate({ to, search: other === null ? {} : { tenant: other } });
  };
}
