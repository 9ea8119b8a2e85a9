import { expect, expectTypeOf, it } from "vitest";
import * as sdk from "../../src/index.js";
import type * as types from "../../src/index.js";

/** The types that programs are written against; removing one breaks them. */
interface Promised {
  NimbusClientOptions: types.NimbusClientOptions;
  NimbusCredential: types.NimbusCredential;
  NimbusCondition: types.NimbusCondition;
  NimbusRedactedValues: types.NimbusRedactedValues;
  NimbusServiceEndpoint: types.NimbusServiceEndpoint;
  NimbusServiceSelector: types.NimbusServiceSelector;
  NimbusServiceStartRequest: types.NimbusServiceStartRequest;
  NimbusServiceStopRequest: types.NimbusServiceStopRequest;
  NimbusServiceLifecycleRequest: types.NimbusServiceLifecycleRequest;
  NimbusServiceWaitRequest: types.NimbusServiceWaitRequest;
  NimbusServiceCreateRequest: types.NimbusServiceCreateRequest;
  NimbusServiceUpdateRequest: types.NimbusServiceUpdateRequest;
  NimbusServiceDeleteRequest: types.NimbusServiceDeleteRequest;
  NimbusServiceListRequest: types.NimbusServiceListRequest;
  NimbusServiceWaitCondition: types.NimbusServiceWaitCondition;
  NimbusServiceActivationWaitCondition: types.NimbusServiceActivationWaitCondition;
  NimbusServiceStopWaitCondition: types.NimbusServiceStopWaitCondition;
  NimbusServiceBackendSpec: types.NimbusServiceBackendSpec;
  NimbusServiceBackendResponse: types.NimbusServiceBackendResponse;
  NimbusBuiltInProviderId: types.NimbusBuiltInProviderId;
  NimbusExternalAuthPolicy: types.NimbusExternalAuthPolicy;
  NimbusExternalEndpointPolicy: types.NimbusExternalEndpointPolicy;
  NimbusHealthCheckPolicy: types.NimbusHealthCheckPolicy;
  NimbusService: types.NimbusService;
  NimbusServiceDefinition: types.NimbusServiceDefinition;
  NimbusServiceDefinitionCollection: types.NimbusServiceDefinitionCollection;
  NimbusSandboxCreateRequest: types.NimbusSandboxCreateRequest;
  NimbusSandboxSelector: types.NimbusSandboxSelector;
  NimbusSandboxListRequest: types.NimbusSandboxListRequest;
  NimbusSandboxProfile: types.NimbusSandboxProfile;
  NimbusSandboxSpec: types.NimbusSandboxSpec;
  NimbusSandboxOwnerSpec: types.NimbusSandboxOwnerSpec;
  NimbusSandboxBackendKind: types.NimbusSandboxBackendKind;
  NimbusSandboxRootSpec: types.NimbusSandboxRootSpec;
  NimbusSandboxOciImageReferenceSource: types.NimbusSandboxOciImageReferenceSource;
  NimbusSandboxProcessSpec: types.NimbusSandboxProcessSpec;
  NimbusSandboxResource: types.NimbusSandboxResource;
  NimbusSandboxCollection: types.NimbusSandboxCollection;
  NimbusSandboxSpecResponse: types.NimbusSandboxSpecResponse;
  NimbusSandboxRootResponse: types.NimbusSandboxRootResponse;
  NimbusSandboxProcessResponse: types.NimbusSandboxProcessResponse;
  NimbusSessionOpenRequest: types.NimbusSessionOpenRequest;
  NimbusSessionSelector: types.NimbusSessionSelector;
  NimbusSessionListRequest: types.NimbusSessionListRequest;
  NimbusSessionCloseRequest: types.NimbusSessionCloseRequest;
  NimbusSessionTarget: types.NimbusSessionTarget;
  NimbusSessionChannel: types.NimbusSessionChannel;
  NimbusSessionResource: types.NimbusSessionResource;
  NimbusSessionCollection: types.NimbusSessionCollection;
}

it("exports the classes and helpers that programs use", () => {
  expect(Object.keys(sdk)).toEqual(
    expect.arrayContaining(["Nimbus", "NimbusApiError", "NimbusCommitError", "NimbusDiscoveryError", "NimbusWaitTimeoutError", "decodeNimbusErrorEnvelope", "isNimbusCommitError"]),
  );
});

it("exports the types that programs name", () => {
  expectTypeOf<Promised["NimbusExternalAuthPolicy"]>().toEqualTypeOf<{ readonly kind: "none" }>();
  expectTypeOf<Promised["NimbusHealthCheckPolicy"]>().toEqualTypeOf<{ readonly kind: "http"; readonly path: string }>();
  expectTypeOf<Promised["NimbusService"]>().toExtend<Promised["NimbusServiceDefinition"]>();
  expectTypeOf<sdk.NimbusSandbox>().toExtend<Promised["NimbusSandboxResource"]>();
  expectTypeOf<ReturnType<sdk.NimbusServices["list"]>>().toExtend<Promise<Promised["NimbusServiceDefinitionCollection"]>>();
  expectTypeOf<ReturnType<sdk.NimbusSandboxes["list"]>>().toExtend<Promise<Promised["NimbusSandboxCollection"]>>();
  expectTypeOf<ReturnType<sdk.NimbusSessions["list"]>>().toExtend<Promise<Promised["NimbusSessionCollection"]>>();
});
