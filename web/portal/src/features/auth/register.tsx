import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { getRouteApi, Link, useRouter } from "@tanstack/react-router";
import { useState } from "react";
import { Form } from "react-aria-components/Form";
import { api } from "~/api/endpoints";
import { ApiError } from "~/api/client";
import { queries } from "~/api/queries";
import { InlineError } from "~/app/problem";
import { Button } from "~/ui/button";
import { Field } from "~/ui/field";
import { Notice } from "~/ui/status";
import { AuthFrame, TEXT_LINK } from "./frame";
import { emailProblem, MIN_PASSWORD } from "./rules";

const route = getRouteApi("/register");

export function Register() {
  const { next } = route.useSearch();
  const router = useRouter();
  return (
    <RegisterForm
      {...(next !== undefined ? { next } : {})}
      onDone={() => {
        router.history.push(next ?? "/machines");
      }}
    />
  );
}

export function RegisterForm({ next, onDone }: { next?: string; onDone: () => void }) {
  const client = useQueryClient();
  const { data: setup } = useQuery(queries.setup());
  const [name, setName] = useState("");
  const [email, setEmail] = useState("");
  const [password, setPassword] = useState("");
  const [tried, setTried] = useState(false);
  const register = useMutation({
    mutationFn: async () => {
      const credentials = { email: email.trim(), password };
      await api.register({ name: name.trim(), ...credentials });
      // Registering opens no session by itself.
      await api.login(credentials);
    },
    onSuccess: () => {
      client.clear();
      onDone();
    },
  });

  const first = setup?.needs_admin_setup ?? false;
  const named = register.error instanceof ApiError ? register.error.field : null;
  const taken = register.error instanceof ApiError && register.error.status === 409;
  const nameError = (tried && name.trim() === "" ? "Enter the name others know you by." : null) ?? (named === "name" ? register.error?.message : null);
  const emailError = (tried ? emailProblem(email) : null) ?? (named === "email" ? register.error?.message : null);
  const passwordError =
    (tried && password.length < MIN_PASSWORD
      ? password === ""
        ? `Choose a password of at least ${MIN_PASSWORD} characters.`
        : `${MIN_PASSWORD - password.length} more ${MIN_PASSWORD - password.length === 1 ? "character" : "characters"} needed.`
      : null) ?? (named === "password" ? register.error?.message : null);

  return (
    <AuthFrame
      title="Create account"
      lead={first ? "The first account of this installation." : "A personal account with machines of its own."}
      foot={
        first ? (
          "Everything stays on this installation."
        ) : (
          <>
            Already have one?{" "}
            <Link to="/sign-in" search={next === undefined ? {} : { next }} className={TEXT_LINK}>
              Sign in
            </Link>
          </>
        )
      }
    >
      {first ? (
        <Notice tone="info" title="You become the administrator">
          <p>The first account may see and operate the whole cluster. Everyone after it is a member.</p>
        </Notice>
      ) : null}
      <Form
        className="flex flex-col gap-4"
        onSubmit={(event) => {
          event.preventDefault();
          setTried(true);
          if (register.isPending || name.trim() === "" || emailProblem(email) !== null || password.length < MIN_PASSWORD) return;
          register.mutate();
        }}
      >
        <Field label="Name" name="name" autoComplete="name" value={name} onChange={setName} error={nameError} autoFocus />
        <Field label="Email" type="email" name="email" autoComplete="username" value={email} onChange={setEmail} error={emailError} />
        <Field
          label="Password"
          type="password"
          name="password"
          autoComplete="new-password"
          value={password}
          onChange={setPassword}
          error={passwordError}
          description={`At least ${MIN_PASSWORD} characters. A sentence is easier to keep than a riddle.`}
        />
        {register.isError && named === null ? <InlineError error={register.error} /> : null}
        {taken ? (
          <p className="text-sm">
            <Link to="/sign-in" className={TEXT_LINK}>
              Sign in with that address
            </Link>
          </p>
        ) : null}
        <Button kind="primary" size="lg" type="submit" isPending={register.isPending} pendingLabel="Creating account">
          Create account
        </Button>
      </Form>
    </AuthFrame>
  );
}
