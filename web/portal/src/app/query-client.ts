import { QueryCache, QueryClient } from "@tanstack/react-query";
import { ApiError } from "~/api/client";
import { keys, shouldRetry } from "~/api/queries";

/** `onSignedOut` runs when the server no longer knows the session. */
export function makeQueryClient(onSignedOut: () => void = () => undefined): QueryClient {
  return new QueryClient({
    queryCache: new QueryCache({
      onError: (error, query) => {
        // Whether somebody is signed in at all is asked by the router, which answers by itself.
        if (error instanceof ApiError && error.status === 401 && query.queryKey[0] !== keys.me[0]) onSignedOut();
      },
    }),
    defaultOptions: {
      queries: { retry: shouldRetry, retryDelay: (count) => 400 * 2 ** count, staleTime: 10_000, gcTime: 30 * 60_000 },
      mutations: { retry: false },
    },
  });
}
