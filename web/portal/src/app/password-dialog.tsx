import { useMutation } from "@tanstack/react-query";
import { useState } from "react";
import { Form } from "react-aria-components/Form";
import { api } from "~/api/endpoints";
import { MIN_PASSWORD } from "~/features/auth/rules";
import { Button } from "~/ui/button";
import { Dialog, DialogActions } from "~/ui/dialog";
import { Field } from "~/ui/field";
import { notify } from "~/ui/toast";
import { InlineError } from "./problem";

export function PasswordDialog({ isOpen, onClose }: { isOpen: boolean; onClose: () => void }) {
  return (
    <Dialog title="Change password" isOpen={isOpen} onClose={onClose}>
      <PasswordForm onClose={onClose} />
    </Dialog>
  );
}

function PasswordForm({ onClose }: { onClose: () => void }) {
  const [current, setCurrent] = useState("");
  const [next, setNext] = useState("");
  const change = useMutation({
    mutationFn: () => api.changePassword({ current_password: current, new_password: next }),
    onSuccess: () => {
      notify({ tone: "good", title: "Password changed", text: "Other sessions were signed out." });
      onClose();
    },
  });
  const short = next !== "" && next.length < MIN_PASSWORD;
  return (
    <Form
      className="flex flex-col gap-4"
      onSubmit={(event) => {
        event.preventDefault();
        if (!change.isPending && !short && next !== "" && current !== "") change.mutate();
      }}
    >
      <Field label="Current password" type="password" autoComplete="current-password" value={current} onChange={setCurrent} autoFocus />
      <Field
        label="New password"
        type="password"
        autoComplete="new-password"
        value={next}
        onChange={setNext}
        description={`At least ${MIN_PASSWORD} characters.`}
        error={short ? `${MIN_PASSWORD - next.length} more characters needed.` : null}
      />
      <p className="text-sm text-muted">All other sessions are signed out.</p>
      {change.isError ? <InlineError error={change.error} /> : null}
      <DialogActions>
        <Button onPress={onClose}>Cancel</Button>
        <Button kind="primary" type="submit" isPending={change.isPending} pendingLabel="Changing">
          Change password
        </Button>
      </DialogActions>
    </Form>
  );
}
