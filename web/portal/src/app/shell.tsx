import { useQuery, useQueryClient } from "@tanstack/react-query";
import { Link, Outlet, useLocation, useNavigate, useRouter } from "@tanstack/react-router";
import { lazy, Suspense, useEffect, useState } from "react";
import { Button as AriaButton } from "react-aria-components/Button";
import { api } from "~/api/endpoints";
import { openStream, useStreamState } from "~/api/events";
import { queries } from "~/api/queries";
import { cx } from "~/ui/cx";
import { MoreIcon, NimbusMark, SearchIcon } from "~/ui/icons";
import { Menu, type MenuEntry } from "~/ui/menu";
import { StatusDot } from "~/ui/status";
import { Breadcrumb } from "./breadcrumb";
import { ADMIN_NAV, isOfTenant, MAIN_NAV, needsNoCluster, type NavItem } from "./nav";
import { PasswordDialog } from "./password-dialog";
import { NotConfigured } from "./not-configured";
import { TenantMenu } from "./tenant-menu";
import { setTheme, THEMES, useTheme } from "./theme";

const loadPalette = () => import("./palette");
const Palette = lazy(loadPalette);

export function Shell() {
  const client = useQueryClient();
  const [palette, setPalette] = useState(false);
  const { data: me } = useQuery(queries.me());
  const { data: setup } = useQuery(queries.setup());
  const { pathname } = useLocation();

  useEffect(() => openStream(client), [client]);
  // What is typed right after the shortcut must find the palette there.
  useEffect(() => {
    const timer = setTimeout(() => {
      // Only ahead of time: without it, opening the palette fetches it, and says so if that fails.
      loadPalette().catch(() => undefined);
    }, 500);
    return () => {
      clearTimeout(timer);
    };
  }, []);
  useEffect(() => {
    const onKey = (event: KeyboardEvent) => {
      if (event.key.toLowerCase() !== "k" || !(event.metaKey || event.ctrlKey)) return;
      event.preventDefault();
      setPalette((open) => !open);
    };
    document.addEventListener("keydown", onKey);
    return () => {
      document.removeEventListener("keydown", onKey);
    };
  }, []);

  const admin = me?.is_admin ?? false;
  const needsCluster = setup?.configured === false && !needsNoCluster(pathname);

  return (
    <div className="flex min-h-dvh">
      <a
        href="#content"
        className="sr-only z-50 rounded bg-panel px-3 py-2 shadow-float focus:not-sr-only focus:fixed focus:top-2 focus:left-2"
      >
        Skip to content
      </a>
      <aside className="sticky top-0 flex h-dvh w-[232px] shrink-0 flex-col border-r border-line bg-sunken max-md:hidden">
        <Link to="/machines" className="flex h-14 items-center gap-2.5 px-4 text-base font-semibold tracking-[-0.01em]">
          <NimbusMark /> Nimbus
        </Link>
        <nav aria-label="Main" className="flex flex-1 flex-col gap-0.5 overflow-y-auto px-2 py-1">
          {MAIN_NAV.map((item) => (
            <SideLink key={item.to} item={item} />
          ))}
          {admin ? (
            <>
              <p id="nav-operate" className="px-2.5 pt-5 pb-1 text-xs font-medium text-muted">
                Operate
              </p>
              <div role="group" aria-labelledby="nav-operate" className="flex flex-col gap-0.5">
                {ADMIN_NAV.map((item) => (
                  <SideLink key={item.to} item={item} />
                ))}
              </div>
            </>
          ) : null}
        </nav>
        <div className="border-t border-line px-4 py-3 text-xs text-muted">
          <StreamNote />
        </div>
      </aside>

      <div className="flex min-w-0 flex-1 flex-col">
        <header className="sticky top-0 z-20 flex h-14 items-center gap-3 border-b border-line bg-bg px-4 sm:px-8">
          <Link to="/machines" aria-label="Nimbus" className="md:hidden">
            <NimbusMark />
          </Link>
          <Breadcrumb />
          <div className="ml-auto flex items-center gap-2">
            <span className="md:hidden">
              <StreamNote quiet />
            </span>
            <AriaButton
              onPress={() => {
                setPalette(true);
              }}
              className="flex h-8 items-center gap-2 rounded border border-line bg-panel px-2.5 text-sm text-muted data-hovered:border-line-strong data-hovered:text-fg"
            >
              <SearchIcon />
              <span className="max-sm:sr-only">Search</span>
              <kbd aria-hidden="true" className="ml-4 font-mono text-xs max-lg:hidden">{/Mac|iP(hone|ad)/.test(navigator.userAgent) ? "⌘K" : "Ctrl K"}</kbd>
            </AriaButton>
            {isOfTenant(pathname) ? <TenantMenu /> : null}
            {me ? <AccountMenu name={me.name} email={me.email} /> : null}
          </div>
        </header>
        <main id="content" tabIndex={-1} className="flex-1 pb-20 outline-none md:pb-8">
          {needsCluster ? <NotConfigured /> : <Outlet />}
        </main>
      </div>

      <BottomBar admin={admin} />
      {palette ? (
        <Suspense fallback={null}>
          <Palette
            admin={admin}
            onClose={() => {
              setPalette(false);
            }}
          />
        </Suspense>
      ) : null}
    </div>
  );
}

/** An operation belongs to the machines. */
function isHere(item: NavItem, pathname: string): boolean {
  return pathname.startsWith(item.to) || (item.to === "/machines" && pathname.startsWith("/operations/"));
}

function SideLink({ item }: { item: NavItem }) {
  const { pathname } = useLocation();
  const Icon = item.icon;
  return (
    <Link
      to={item.to}
      className="flex h-8 items-center gap-2.5 rounded px-2.5 text-sm font-medium text-muted transition-colors duration-[120ms] hover:bg-hover hover:text-fg data-[here=true]:bg-track data-[here=true]:text-fg"
      data-here={isHere(item, pathname)}
      activeProps={{ "aria-current": "page" }}
    >
      <Icon className="shrink-0" />
      {item.label}
    </Link>
  );
}

function StreamNote({ quiet }: { quiet?: boolean }) {
  const state = useStreamState();
  if (quiet && state !== "polling") return null;
  switch (state) {
    case "live":
      return <StatusDot tone="good">Live</StatusDot>;
    case "connecting":
      return <StatusDot tone="idle">Connecting</StatusDot>;
    case "polling":
      return (
        <span role="status">
          <StatusDot tone="wait" moving>
            {quiet ? "Reconnecting" : "Reconnecting, refreshing every 5 s"}
          </StatusDot>
        </span>
      );
  }
}

function initials(name: string): string {
  return name
    .split(/\s+/)
    .filter((word) => word !== "")
    .slice(0, 2)
    .map((word) => word.charAt(0).toUpperCase())
    .join("");
}

function AccountMenu({ name, email }: { name: string; email: string }) {
  const theme = useTheme();
  const client = useQueryClient();
  const router = useRouter();
  const navigate = useNavigate();
  const [password, setPassword] = useState(false);
  const entries: MenuEntry[] = [
    { type: "note", id: "who", title: name, text: email },
    { type: "line", id: "l1" },
    {
      type: "choice",
      id: "theme",
      title: "Appearance",
      value: theme,
      options: THEMES,
      onChange: (key) => {
        const chosen = THEMES.find((item) => item.key === key);
        if (chosen) setTheme(chosen.key);
      },
    },
    { type: "line", id: "l2" },
    {
      type: "item",
      id: "access",
      label: "Keys and tokens",
      onAction: () => void navigate({ to: "/access" }),
    },
    {
      type: "item",
      id: "password",
      label: "Change password",
      onAction: () => {
        setPassword(true);
      },
    },
    { type: "line", id: "l3" },
    {
      type: "item",
      id: "out",
      label: "Sign out",
      onAction: () => {
        void api
          .logout()
          .catch(() => undefined)
          .then(async () => {
            await router.navigate({ to: "/sign-in" });
            client.clear();
          });
      },
    },
  ];
  return (
    <>
      <Menu label="Account" entries={entries}>
        <AriaButton
          className="flex size-8 items-center justify-center rounded-full bg-accent-soft text-xs font-semibold text-accent-strong data-hovered:bg-[var(--indigo-4)]"
        >
          <span aria-hidden="true">{initials(name)}</span>
          <span className="sr-only">Account of {name}</span>
        </AriaButton>
      </Menu>
      <PasswordDialog
        isOpen={password}
        onClose={() => {
          setPassword(false);
        }}
      />
    </>
  );
}

function BottomBar({ admin }: { admin: boolean }) {
  const navigate = useNavigate();
  const { pathname } = useLocation();
  const items = [...MAIN_NAV, ...(admin ? ADMIN_NAV : [])];
  const first = items.slice(0, 4);
  const rest = items.slice(4);
  const restActive = rest.some((item) => isHere(item, pathname));
  const cell = "flex flex-1 flex-col items-center justify-center gap-0.5 text-xs font-medium text-muted data-[here=true]:text-accent-text";
  return (
    <nav
      aria-label="Main"
      className="fixed inset-x-0 bottom-0 z-30 flex h-16 border-t border-line bg-bg pb-[env(safe-area-inset-bottom)] md:hidden"
    >
      {first.map((item) => {
        const Icon = item.icon;
        return (
          <Link key={item.to} to={item.to} className={cell} data-here={isHere(item, pathname)} activeProps={{ "aria-current": "page" }}>
            <Icon width={20} height={20} />
            {item.short}
          </Link>
        );
      })}
      {rest.length > 0 ? (
        <Menu
          label="More pages"
          entries={rest.map((item) => ({
            type: "item" as const,
            id: item.to,
            label: item.label,
            onAction: () => void navigate({ to: item.to }),
          }))}
        >
          <AriaButton className={cx(cell, restActive && "text-accent-text")}>
            <MoreIcon width={20} height={20} />
            More
          </AriaButton>
        </Menu>
      ) : null}
    </nav>
  );
}
