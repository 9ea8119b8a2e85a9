import { QueryClientProvider, type QueryClient } from "@tanstack/react-query";
import { createMemoryHistory, RouterProvider } from "@tanstack/react-router";
import { render } from "@testing-library/react";
import userEvent from "@testing-library/user-event";
import type { ReactNode } from "react";
import { makeQueryClient } from "~/app/query-client";
import { makeRouter } from "~/app/router";
import { Toasts } from "~/ui/toast";

function quickClient(): QueryClient {
  const client = makeQueryClient();
  client.setDefaultOptions({ queries: { retry: false, staleTime: 10_000 }, mutations: { retry: false } });
  return client;
}

/** The whole portal at one address. */
export function renderApp(path: string) {
  const client = quickClient();
  const history = createMemoryHistory({ initialEntries: [path] });
  const router = makeRouter(client, history);
  const view = render(
    <QueryClientProvider client={client}>
      <RouterProvider router={router} />
      <Toasts />
    </QueryClientProvider>,
  );
  return { client, router, user: userEvent.setup(), ...view };
}

/** One part of it, with a cache of its own. */
export function renderPart(part: ReactNode) {
  const client = quickClient();
  return { client, user: userEvent.setup(), ...render(<QueryClientProvider client={client}>{part}</QueryClientProvider>) };
}
