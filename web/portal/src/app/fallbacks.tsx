import { useQueryClient } from "@tanstack/react-query";
import { useRouter, type ErrorComponentProps } from "@tanstack/react-router";
import { ButtonLink } from "~/ui/button";
import { NimbusMark } from "~/ui/icons";
import { Panel } from "~/ui/states";
import { ErrorState } from "./problem";
import { Page } from "./page";

export function Splash() {
  return (
    <div role="status" className="flex min-h-[40vh] items-center justify-center gap-3 text-muted">
      <NimbusMark /> Loading
    </div>
  );
}

/** The first moment, before anybody is known. */
export function SplashPage() {
  return (
    <main>
      <h1 className="sr-only">Nimbus</h1>
      <Splash />
    </main>
  );
}

/** Outside of the frame. */
export function NotFoundPage() {
  return (
    <main className="pt-[12vh]">
      <NotFound />
    </main>
  );
}

export function NotFound() {
  return (
    <Page title="Nothing here" lead="The address is wrong, or what it named is gone." narrow>
      <div>
        <ButtonLink to="/machines" kind="primary">
          Go to machines
        </ButtonLink>
      </div>
    </Page>
  );
}

export function Forbidden() {
  return (
    <Page title="Administrators only" lead="This page shows the whole installation. Ask an administrator if you need what is on it.">
      <div>
        <ButtonLink to="/machines" kind="primary">
          Go to machines
        </ButtonLink>
      </div>
    </Page>
  );
}

/** The server is away, or the page broke: say which, and offer the way back. */
export function RouteError({ error, reset }: ErrorComponentProps) {
  const router = useRouter();
  const client = useQueryClient();
  return (
    <main className="mx-auto max-w-2xl p-4 pt-[12vh]">
      <Panel>
        <ErrorState
          error={error}
          title="Nimbus could not show this page"
          onRetry={() => {
            void client.resetQueries().then(() => {
              reset();
              void router.invalidate();
            });
          }}
        />
      </Panel>
    </main>
  );
}
