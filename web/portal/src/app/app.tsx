import { QueryClientProvider } from "@tanstack/react-query";
import { RouterProvider } from "@tanstack/react-router";
import { useState } from "react";
import { keys } from "~/api/queries";
import { Toasts } from "~/ui/toast";
import { makeQueryClient } from "./query-client";
import { makeRouter } from "./router";

function start() {
  let last = 0;
  const client = makeQueryClient(() => {
    // Several requests fail at once when a session ends; one question is enough.
    if (Date.now() - last < 2_000) return;
    last = Date.now();
    client.removeQueries({ queryKey: keys.me });
    // Asking again who is signed in leads to the sign-in page and back here afterwards.
    void router.invalidate();
  });
  const router = makeRouter(client);
  return { client, router };
}

export function App() {
  const [{ client, router }] = useState(start);
  return (
    <QueryClientProvider client={client}>
      <RouterProvider router={router} />
      <Toasts />
    </QueryClientProvider>
  );
}
