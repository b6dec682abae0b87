// An app of the Java SDK: an HTTP server that takes events and bindings, the SDK's clients for the rest. Prints "OK <step>".
import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import io.dapr.client.DaprClient;
import io.dapr.client.DaprClientBuilder;
import io.dapr.client.DaprPreviewClient;
import io.dapr.client.SubscriptionListener;
import io.dapr.client.domain.CloudEvent;
import io.dapr.client.domain.ConversationInputAlpha2;
import io.dapr.client.domain.ConversationMessageContent;
import io.dapr.client.domain.ConversationRequestAlpha2;
import io.dapr.client.domain.DecryptRequestAlpha1;
import io.dapr.client.domain.EncryptRequestAlpha1;
import io.dapr.client.domain.UserMessage;
import io.dapr.utils.TypeRef;
import java.io.ByteArrayOutputStream;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.concurrent.Executors;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import reactor.core.publisher.Flux;
import reactor.core.publisher.Mono;

public class App {
  static final LinkedBlockingQueue<String> seen = new LinkedBlockingQueue<>();

  static void done(String step) {
    System.out.println("OK " + step);
  }

  static void check(boolean ok, Object what) {
    if (!ok) {
      throw new AssertionError(what);
    }
  }

  // Waits for one text; others may come before.
  static void expect(String want) throws InterruptedException {
    List<String> others = new ArrayList<>();
    for (String s; (s = seen.poll(20, TimeUnit.SECONDS)) != null; others.add(s)) {
      if (s.equals(want)) {
        return;
      }
    }
    throw new AssertionError(want + " did not come; came: " + others);
  }

  static void redis(String... words) throws Exception {
    List<String> argv = new ArrayList<>(List.of("redis-cli", "-p", System.getenv("REDIS_PORT")));
    argv.addAll(Arrays.asList(words));
    check(new ProcessBuilder(argv).redirectErrorStream(true).start().waitFor() == 0, argv);
  }

  static void answer(HttpExchange x, int status, String body) throws java.io.IOException {
    byte[] out = body.getBytes(StandardCharsets.UTF_8);
    x.getResponseHeaders().set("content-type", "application/json");
    x.sendResponseHeaders(status, out.length == 0 ? -1 : out.length);
    x.getResponseBody().write(out);
    x.close();
  }

  static void serve() throws Exception {
    HttpServer s = HttpServer.create(new InetSocketAddress("127.0.0.1", Integer.parseInt(System.getenv("APP_PORT"))), 100);
    s.setExecutor(Executors.newCachedThreadPool());
    s.createContext("/", x -> answer(x, 404, ""));
    s.createContext("/dapr/subscribe", x -> answer(x, 200,
        "[{\"pubsubname\":\"pub\",\"topic\":\"programmatic\",\"route\":\"/programmatic\"}]"));
    for (String topic : List.of("programmatic", "declared")) {
      s.createContext("/" + topic, x -> {
        seen.add(topic + " " + CloudEvent.deserialize(x.getRequestBody().readAllBytes()).getData());
        answer(x, 200, "{\"status\":\"SUCCESS\"}");
      });
    }
    s.createContext("/tick", x -> {
      seen.add("tick");
      answer(x, 200, "");
    });
    s.start();
  }

  static void events(DaprClient c, DaprPreviewClient p) throws Exception {
    c.publishEvent("pub", "programmatic", Map.of("n", 1)).block();
    expect("programmatic {n=1}");
    done("publish, programmatic subscription");
    c.publishEvent("pub", "declared", "text").block();
    expect("declared text");
    done("declarative subscription");
    check(p.publishEvents("pub", "programmatic", "text/plain", "a", "b").block().getFailedEntries().isEmpty(), "bulk");
    expect("programmatic a");
    expect("programmatic b");
    done("bulk publish");
    var s = p.subscribeToEvents("pub", "streamed", new SubscriptionListener<String>() {
      public Mono<Status> onEvent(CloudEvent<String> e) {
        seen.add("streamed " + e.getData());
        return Mono.just(Status.SUCCESS);
      }

      public void onError(RuntimeException e) {
        seen.add("error " + e);
      }
    }, TypeRef.STRING);
    c.publishEvent("pub", "streamed", "over a stream").block();
    expect("streamed over a stream");
    s.close();
    done("streaming subscription");
  }

  static void bindings(DaprClient c) throws Exception {
    expect("tick");
    Map<String, String> at = Map.of("fileName", "a.txt");
    c.invokeBinding("files", "create", "kept!".getBytes(), at).block();
    check(new String(c.invokeBinding("files", "get", new byte[0], at).block()).equals("kept!"), "the file");
    done("bindings");
  }

  static void configuration(DaprClient c) throws Exception {
    redis("SET", "color", "red||1");
    check(c.getConfiguration("cfg", "color").block().getValue().equals("red"), "red");
    LinkedBlockingQueue<String> ids = new LinkedBlockingQueue<>();
    var d = c.subscribeConfiguration("cfg", "color").subscribe(r -> {
      ids.add(r.getSubscriptionId());
      r.getItems().forEach((k, v) -> seen.add(k + " " + v.getValue()));
    });
    String id = ids.poll(20, TimeUnit.SECONDS);
    redis("SET", "color", "blue||2");
    expect("color blue");
    check(c.unsubscribeConfiguration(id, "cfg").block().getIsUnsubscribed(), "unsubscribed");
    d.dispose();
    done("configuration");
  }

  static byte[] join(Flux<byte[]> parts) {
    ByteArrayOutputStream out = new ByteArrayOutputStream();
    parts.toStream().forEach(out::writeBytes);
    return out.toByteArray();
  }

  static void others(DaprPreviewClient p) {
    check(p.tryLock("locks", "r", "me", 30).block() && !p.tryLock("locks", "r", "you", 30).block(), "lock");
    check(p.unlock("locks", "r", "me").block().toString().equals("SUCCESS"), "unlock");
    done("lock");
    byte[] data = new byte[300000];
    new Random(1).nextBytes(data);
    byte[] secret = join(p.encrypt(new EncryptRequestAlpha1("vault", Flux.just(data), "aes256", "A256KW")));
    check(new String(secret, 0, 14).equals("dapr.io/enc/v1"), "the document's head");
    check(Arrays.equals(data, join(p.decrypt(new DecryptRequestAlpha1("vault", Flux.just(secret))))), "the document");
    done("crypto");
    var input = new ConversationInputAlpha2(List.of(new UserMessage(List.of(new ConversationMessageContent("hello")))));
    var r = p.converseAlpha2(new ConversationRequestAlpha2("echo", List.of(input))).block();
    check(r.getOutputs().get(0).getChoices().get(0).getMessage().getContent().equals("hello"), r);
    done("conversation");
  }

  public static void main(String[] args) throws Exception {
    serve();
    try (DaprClient c = new DaprClientBuilder().build(); DaprPreviewClient p = new DaprClientBuilder().buildPreviewClient()) {
      c.waitForSidecar(20000).block();
      events(c, p);
      bindings(c);
      configuration(c);
      others(p);
      System.exit(0);
    } catch (Throwable e) {
      e.printStackTrace();
      System.exit(1);
    }
  }
}
