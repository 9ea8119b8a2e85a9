import { useMutation, useQueryClient } from "@tanstack/react-query";
import { getRouteApi, Link, useRouter } from "@tanstack/react-router";
import { useState } from "react";
import { Form } from "react-aria-components/Form";
import { ApiError } from "~/api/client";
import { api } from "~/api/endpoints";
import { InlineError } from "~/app/problem";
import { Button } from "~/ui/button";
import { Field } from "~/ui/field";
import { AuthFrame, TEXT_LINK } from "./frame";
import { emailProblem } from "./rules";

const route = getRouteApi("/sign-in");

export function SignIn() {
  const { next } = route.useSearch();
  const router = useRouter();
  return (
    <SignInForm
      {...(next !== undefined ? { next } : {})}
      onDone={() => {
        router.history.push(next ?? "/machines");
      }}
    />
  );
}

export function SignInForm({ next, onDone }: { next?: string; onDone: () => void }) {
  const client = useQueryClient();
  const [email, setEmail] = useState("");
  const [password, setPassword] = useState("");
  const [tried, setTried] = useState(false);
  const signIn = useMutation({
    mutationFn: () => api.login({ email: email.trim(), password }),
    onSuccess: () => {
      client.clear();
      onDone();
    },
  });
  const emailError = tried ? emailProblem(email) : null;
  const passwordError = tried && password === "" ? "Enter your password." : null;

  return (
    <AuthFrame
      title="Sign in"
      lead="Linux machines on your own cluster."
      foot={
        <>
          No account yet?{" "}
          <Link to="/register" search={next === undefined ? {} : { next }} className={TEXT_LINK}>
            Create account
          </Link>
        </>
      }
    >
      <Form
        className="flex flex-col gap-4"
        onSubmit={(event) => {
          event.preventDefault();
          setTried(true);
          if (signIn.isPending || emailProblem(email) !== null || password === "") return;
          signIn.mutate();
        }}
      >
        <Field label="Email" type="email" name="email" autoComplete="username" value={email} onChange={setEmail} error={emailError} autoFocus />
        <Field label="Password" type="password" name="password" autoComplete="current-password" value={password} onChange={setPassword} error={passwordError} />
        {signIn.isError ? <InlineError error={signIn.error} brief={signIn.error instanceof ApiError && signIn.error.status === 401} /> : null}
        <Button kind="primary" size="lg" type="submit" isPending={signIn.isPending} pendingLabel="Signing in">
          Sign in
        </Button>
      </Form>
    </AuthFrame>
  );
}
