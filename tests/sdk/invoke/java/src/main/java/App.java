// An app for the Java SDK: an HTTP server, or the SDK's AppCallback service on grpc-java (PROTOCOL). See test_polyglot.py.
import com.fasterxml.jackson.databind.ObjectMapper;
import com.google.protobuf.Any;
import com.google.protobuf.ByteString;
import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import io.dapr.client.DaprClient;
import io.dapr.client.DaprClientBuilder;
import io.dapr.client.domain.HttpExtension;
import io.dapr.v1.AppCallbackGrpc;
import io.dapr.v1.CommonProtos.InvokeRequest;
import io.dapr.v1.CommonProtos.InvokeResponse;
import io.grpc.ServerBuilder;
import io.grpc.Status;
import io.grpc.stub.StreamObserver;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.net.InetSocketAddress;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Executors;

public class App {
  static final String ID = System.getenv("APP_ID");
  static final int PORT = Integer.parseInt(System.getenv("APP_PORT"));
  static final ObjectMapper JSON = new ObjectMapper();

  // The answer of a method; null: there is none of this verb and name.
  static byte[] answer(String verb, String method, byte[] body) throws IOException {
    if (verb.equals("POST") && method.equals("greet")) {
      return JSON.writeValueAsBytes(Map.of("app", ID, "got", JSON.readTree(body)));
    }
    return verb.equals("GET") && method.equals("hello") ? JSON.writeValueAsBytes(Map.of("app", ID)) : null;
  }

  static void handle(HttpExchange x) throws IOException {
    byte[] out = answer(x.getRequestMethod(), x.getRequestURI().getPath().substring(1), x.getRequestBody().readAllBytes());
    x.getResponseHeaders().set("content-type", "application/json");
    x.sendResponseHeaders(out == null ? 404 : 200, out == null ? -1 : out.length);
    if (out != null) {
      x.getResponseBody().write(out);
    }
    x.close();
  }

  static class Callback extends AppCallbackGrpc.AppCallbackImplBase {
    @Override
    public void onInvoke(InvokeRequest r, StreamObserver<InvokeResponse> to) {
      try {
        byte[] out = answer(r.getHttpExtension().getVerb().name(), r.getMethod(), r.getData().getValue().toByteArray());
        if (out == null) {
          to.onError(Status.NOT_FOUND.withDescription("no method " + r.getMethod()).asRuntimeException());
          return;
        }
        to.onNext(InvokeResponse.newBuilder().setContentType("application/json")
            .setData(Any.newBuilder().setValue(ByteString.copyFrom(out))).build());
        to.onCompleted();
      } catch (IOException e) {
        to.onError(Status.INVALID_ARGUMENT.withDescription(e.getMessage()).asRuntimeException());
      }
    }
  }

  static void serve() throws IOException {
    if (System.getenv("PROTOCOL").equals("grpc")) {
      ServerBuilder.forPort(PORT).addService(new Callback()).build().start();
      return;
    }
    HttpServer s = HttpServer.create(new InetSocketAddress("127.0.0.1", PORT), 100);
    s.setExecutor(Executors.newCachedThreadPool());
    s.createContext("/", App::handle);
    s.start();
  }

  static void check(boolean ok, Object what) {
    if (!ok) {
      throw new AssertionError(what);
    }
  }

  static void invoke(DaprClient c, String callee) {
    for (String text : List.of("grüße 世界", "ü".repeat(500000))) {
      Map<String, Object> sent = new HashMap<>(Map.of("from", ID, "text", text, "n", Arrays.asList(1, 2.5, null)));
      Map<?, ?> got = c.invokeMethod(callee, "greet", sent, HttpExtension.POST, Map.class).block();
      check(Map.of("app", callee, "got", sent).equals(got), "another answer");
    }
    check(Map.of("app", callee).equals(c.invokeMethod(callee, "hello", null, HttpExtension.GET, Map.class).block()), "hello");
    try {
      c.invokeMethod(callee, "fail", Map.of("a", 1), HttpExtension.POST, Map.class).block();
    } catch (RuntimeException e) {
      return;
    }
    throw new AssertionError("the failure did not come");
  }

  public static void main(String[] args) throws Exception {
    serve();
    BufferedReader in = new BufferedReader(new InputStreamReader(System.in));
    List<?> todo = (List<?>) JSON.readValue(in.readLine(), Map.class).get("invoke");
    try (DaprClient c = new DaprClientBuilder().build()) {
      for (Object callee : todo) {
        try {
          invoke(c, (String) callee);
          System.out.println("PASS java/http " + callee);
        } catch (Throwable e) {
          System.out.println("FAIL java/http " + callee + " " + e.toString().replace('\n', ' '));
        }
      }
    }
    System.out.println("CALLED");
    in.readLine();
    System.exit(0);
  }
}
