import type { QueryClient } from "@tanstack/react-query";
import {
  createRootRouteWithContext,
  createRoute,
  createRouter,
  lazyRouteComponent,
  Outlet,
  redirect,
  type RouterHistory,
} from "@tanstack/react-router";
import { ApiError } from "~/api/client";
import { queries } from "~/api/queries";
import { chooseTenant, chosenTenant } from "./tenant";
import { Forbidden, NotFound, NotFoundPage, RouteError, Splash, SplashPage } from "./fallbacks";
import { Shell } from "./shell";

interface Context {
  client: QueryClient;
}

/** Only a path of our own may be a target after signing in. */
export function safeNext(value: unknown): string | undefined {
  return typeof value === "string" && /^\/(?![/\\])/.test(value) ? value : undefined;
}

/** A prefetch that fails is reported by the page that needs it. */
const ignore = () => undefined;

const rootRoute = createRootRouteWithContext<Context>()({ component: Outlet, notFoundComponent: NotFoundPage });

const authSearch = (search: Record<string, unknown>): { next?: string } => {
  const next = safeNext(search["next"]);
  return next === undefined ? {} : { next };
};

const signInRoute = createRoute({
  getParentRoute: () => rootRoute,
  path: "/sign-in",
  validateSearch: authSearch,
  beforeLoad: async ({ context }) => {
    const status = await context.client.query(queries.setup()).catch(() => null);
    if (status?.needs_admin_setup) throw redirect({ to: "/register" });
  },
  component: lazyRouteComponent(() => import("~/features/auth/sign-in"), "SignIn"),
});

const registerRoute = createRoute({
  getParentRoute: () => rootRoute,
  path: "/register",
  validateSearch: authSearch,
  beforeLoad: async ({ context }) => {
    await context.client.query(queries.setup()).catch(() => null);
  },
  component: lazyRouteComponent(() => import("~/features/auth/register"), "Register"),
});

/** Everything below needs a session. */
const sessionRoute = createRoute({
  getParentRoute: () => rootRoute,
  id: "session",
  beforeLoad: async ({ context, location }) => {
    try {
      const me = await context.client.query({ ...queries.me(), staleTime: "static" });
      return { me };
    } catch (error) {
      if (error instanceof ApiError && error.status === 401) {
        throw redirect({ to: "/sign-in", search: location.pathname === "/" ? {} : { next: location.href } });
      }
      throw error;
    }
  },
  component: Shell,
  pendingComponent: SplashPage,
});

const indexRoute = createRoute({
  getParentRoute: () => sessionRoute,
  path: "/",
  beforeLoad: () => {
    throw redirect({ to: "/machines" });
  },
});

const machinesRoute = createRoute({
  getParentRoute: () => sessionRoute,
  path: "/machines",
  loader: ({ context }) => {
    void context.client.query(queries.machines()).catch(ignore);
    void context.client.query(queries.catalog()).catch(ignore);
  },
  component: lazyRouteComponent(() => import("~/features/machines/list"), "MachinesPage"),
});

const createMachineRoute = createRoute({
  getParentRoute: () => sessionRoute,
  path: "/machines/new",
  validateSearch: (search: Record<string, unknown>): { retry?: true } => (search["retry"] === true ? { retry: true } : {}),
  loader: ({ context }) => {
    void context.client.query(queries.catalog()).catch(ignore);
  },
  component: lazyRouteComponent(() => import("~/features/machines/create"), "CreateMachinePage"),
});

const machineRoute = createRoute({
  getParentRoute: () => sessionRoute,
  path: "/machines/$machineId",
  loader: ({ context, params }) => {
    void context.client.query(queries.machine(params.machineId)).catch(ignore);
  },
  component: lazyRouteComponent(() => import("~/features/machines/detail"), "MachinePage"),
});

const operationRoute = createRoute({
  getParentRoute: () => sessionRoute,
  path: "/operations/$operationId",
  loader: ({ context, params }) => {
    void context.client.query(queries.operation(params.operationId)).catch(ignore);
  },
  component: lazyRouteComponent(() => import("~/features/operations/page"), "OperationPage"),
});

interface OfTenant {
  tenant?: string;
}

/** What belongs to a tenant. Addresses carry it, so that they mean the same to whoever follows them. */
const workRoute = createRoute({
  getParentRoute: () => sessionRoute,
  id: "work",
  validateSearch: (search: Record<string, unknown>): OfTenant => {
    const tenant = search["tenant"];
    return typeof tenant === "string" && tenant !== "" ? { tenant } : {};
  },
  search: {
    middlewares: [
      ({ search, next }) => {
        const result = next(search);
        const chosen = chosenTenant();
        return result.tenant === undefined && chosen !== null ? { ...result, tenant: chosen } : result;
      },
    ],
  },
  beforeLoad: ({ search, context, preload }) => {
    const tenant = search.tenant ?? chosenTenant() ?? context.me.tenant_id;
    if (!preload) chooseTenant(tenant === context.me.tenant_id ? null : tenant);
    return { tenant };
  },
  component: Outlet,
});

const accessRoute = createRoute({
  getParentRoute: () => workRoute,
  path: "/access",
  loader: ({ context }) => {
    void context.client.query(queries.tokens()).catch(ignore);
    void context.client.query(queries.browsers()).catch(ignore);
    void context.client.query(queries.apiKeys(context.tenant)).catch(ignore);
  },
  component: lazyRouteComponent(() => import("~/features/access/page"), "AccessPage"),
});

const sandboxesRoute = createRoute({
  getParentRoute: () => workRoute,
  path: "/sandboxes",
  loader: ({ context }) => {
    void context.client.query(queries.sandboxes(context.tenant)).catch(ignore);
  },
  component: lazyRouteComponent(() => import("~/features/sandboxes/list"), "SandboxesPage"),
});

const createSandboxRoute = createRoute({
  getParentRoute: () => workRoute,
  path: "/sandboxes/new",
  component: lazyRouteComponent(() => import("~/features/sandboxes/create"), "CreateSandboxPage"),
});

const sandboxRoute = createRoute({
  getParentRoute: () => workRoute,
  path: "/sandboxes/$sandboxId",
  loader: ({ context, params }) => {
    void context.client.query(queries.sandbox(context.tenant, params.sandboxId)).catch(ignore);
  },
  component: lazyRouteComponent(() => import("~/features/sandboxes/detail"), "SandboxPage"),
});

const servicesRoute = createRoute({
  getParentRoute: () => workRoute,
  path: "/services",
  loader: ({ context }) => {
    void context.client.query(queries.services(context.tenant)).catch(ignore);
  },
  component: lazyRouteComponent(() => import("~/features/services/list"), "ServicesPage"),
});

const createServiceRoute = createRoute({
  getParentRoute: () => workRoute,
  path: "/services/new",
  component: lazyRouteComponent(() => import("~/features/services/apply"), "CreateServicePage"),
});

const serviceRoute = createRoute({
  getParentRoute: () => workRoute,
  path: "/services/$serviceName",
  loader: ({ context, params }) => {
    void context.client.query(queries.service(context.tenant, params.serviceName)).catch(ignore);
  },
  component: lazyRouteComponent(() => import("~/features/services/detail"), "ServicePage"),
});

const editServiceRoute = createRoute({
  getParentRoute: () => workRoute,
  path: "/services/$serviceName/edit",
  loader: ({ context, params }) => {
    void context.client.query(queries.service(context.tenant, params.serviceName)).catch(ignore);
  },
  component: lazyRouteComponent(() => import("~/features/services/apply"), "EditServicePage"),
});

const workSessionsRoute = createRoute({
  getParentRoute: () => workRoute,
  path: "/sessions",
  // What a new session shall lead to, when one is asked for from elsewhere.
  validateSearch: (search: Record<string, unknown>): { target?: string } => (typeof search["target"] === "string" ? { target: search["target"] } : {}),
  loader: ({ context }) => {
    void context.client.query(queries.sessions(context.tenant)).catch(ignore);
  },
  component: lazyRouteComponent(() => import("~/features/sessions/list"), "SessionsPage"),
});

const workSessionRoute = createRoute({
  getParentRoute: () => workRoute,
  path: "/sessions/$sessionId",
  loader: ({ context, params }) => {
    void context.client.query(queries.session(params.sessionId)).catch(ignore);
  },
  component: lazyRouteComponent(() => import("~/features/sessions/detail"), "SessionPage"),
});

const gpuRoute = createRoute({
  getParentRoute: () => sessionRoute,
  path: "/gpu",
  loader: ({ context }) => {
    void context.client.query(queries.gpuInference()).catch(ignore);
  },
  component: lazyRouteComponent(() => import("~/features/gpu/inference"), "GpuPage"),
});

const gpuJobsRoute = createRoute({
  getParentRoute: () => sessionRoute,
  path: "/gpu/jobs",
  loader: ({ context }) => {
    void context.client.query(queries.gpuJobs()).catch(ignore);
    void context.client.query(queries.gpuWorkers()).catch(ignore);
  },
  component: lazyRouteComponent(() => import("~/features/gpu/jobs"), "GpuJobsPage"),
});

const submitJobRoute = createRoute({
  getParentRoute: () => sessionRoute,
  path: "/gpu/jobs/new",
  // The job that is to be submitted once more.
  validateSearch: (search: Record<string, unknown>): { from?: string } => (typeof search["from"] === "string" ? { from: search["from"] } : {}),
  component: lazyRouteComponent(() => import("~/features/gpu/submit"), "SubmitJobPage"),
});

const gpuJobRoute = createRoute({
  getParentRoute: () => sessionRoute,
  path: "/gpu/jobs/$jobId",
  loader: ({ context, params }) => {
    void context.client.query(queries.gpuJob(params.jobId)).catch(ignore);
  },
  component: lazyRouteComponent(() => import("~/features/gpu/job"), "GpuJobPage"),
});

const gpuWorkersRoute = createRoute({
  getParentRoute: () => sessionRoute,
  path: "/gpu/workers",
  loader: ({ context }) => {
    void context.client.query(queries.gpuWorkers()).catch(ignore);
  },
  component: lazyRouteComponent(() => import("~/features/gpu/workers"), "GpuWorkersPage"),
});

const gpuUsageRoute = createRoute({
  getParentRoute: () => sessionRoute,
  path: "/gpu/usage",
  component: lazyRouteComponent(() => import("~/features/gpu/usage"), "GpuUsagePage"),
});

const adminRoute = createRoute({
  getParentRoute: () => sessionRoute,
  id: "admin",
  component: function Admin() {
    const { me } = adminRoute.useRouteContext();
    return me.is_admin ? <Outlet /> : <Forbidden />;
  },
});

const nodesRoute = createRoute({
  getParentRoute: () => adminRoute,
  path: "/nodes",
  component: lazyRouteComponent(() => import("~/features/nodes/page"), "NodesPage"),
});

const hostsRoute = createRoute({
  getParentRoute: () => adminRoute,
  path: "/hosts",
  component: lazyRouteComponent(() => import("~/features/hosts/page"), "HostsPage"),
});

const addressesRoute = createRoute({
  getParentRoute: () => adminRoute,
  path: "/addresses",
  component: lazyRouteComponent(() => import("~/features/addresses/page"), "AddressesPage"),
});

const activityRoute = createRoute({
  getParentRoute: () => adminRoute,
  path: "/activity",
  component: lazyRouteComponent(() => import("~/features/activity/page"), "ActivityPage"),
});

const tracesRoute = createRoute({
  getParentRoute: () => adminRoute,
  path: "/traces",
  component: lazyRouteComponent(() => import("~/features/traces/list"), "TracesPage"),
});

const traceRoute = createRoute({
  getParentRoute: () => adminRoute,
  path: "/traces/$traceId",
  component: lazyRouteComponent(() => import("~/features/traces/page"), "TracePage"),
});

const clusterRoute = createRoute({
  getParentRoute: () => adminRoute,
  path: "/cluster",
  component: lazyRouteComponent(() => import("~/features/cluster/page"), "ClusterPage"),
});

const gpuSettingsRoute = createRoute({
  getParentRoute: () => adminRoute,
  path: "/settings/gpu",
  component: lazyRouteComponent(() => import("~/features/settings/gpu"), "GpuSettingsPage"),
});

const operationTraceRoute = createRoute({
  getParentRoute: () => sessionRoute,
  path: "/operations/$operationId/trace",
  component: lazyRouteComponent(() => import("~/features/traces/page"), "OperationTracePage"),
});

const galleryRoutes = import.meta.env.DEV
  ? [
      createRoute({
        getParentRoute: () => rootRoute,
        path: "/ui",
        component: lazyRouteComponent(() => import("~/features/gallery/page"), "GalleryPage"),
      }),
    ]
  : [];

const routeTree = rootRoute.addChildren([
  signInRoute,
  registerRoute,
  ...galleryRoutes,
  sessionRoute.addChildren([
    indexRoute,
    machinesRoute,
    createMachineRoute,
    machineRoute,
    operationRoute,
    operationTraceRoute,
    workRoute.addChildren([
      accessRoute,
      sandboxesRoute,
      createSandboxRoute,
      sandboxRoute,
      servicesRoute,
      createServiceRoute,
      serviceRoute,
      editServiceRoute,
      workSessionsRoute,
      workSessionRoute,
    ]),
    gpuRoute,
    gpuJobsRoute,
    submitJobRoute,
    gpuJobRoute,
    gpuWorkersRoute,
    gpuUsageRoute,
    adminRoute.addChildren([nodesRoute, hostsRoute, addressesRoute, activityRoute, tracesRoute, traceRoute, clusterRoute, gpuSettingsRoute]),
  ]),
]);

export function makeRouter(client: QueryClient, history?: RouterHistory) {
  return createRouter({
    routeTree,
    context: { client },
    ...(history ? { history } : {}),
    defaultPreload: "intent",
    defaultPreloadStaleTime: 0,
    scrollRestoration: true,
    defaultPendingComponent: Splash,
    defaultPendingMs: 300,
    defaultNotFoundComponent: NotFound,
    defaultErrorComponent: RouteError,
  });
}

declare module "@tanstack/react-router" {
  interface Register {
    router: ReturnType<typeof makeRouter>;
  }
}
