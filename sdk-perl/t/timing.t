use strict;
use warnings;

use File::Temp ();
use FindBin;
use Test::More;
use Gatepost::Test;

# Lines of a message as it comes in, delays, and places in the order of plugins.

my $test = Gatepost::Test->new(plugin => "$FindBin::RealBin/plugins/slow");

subtest 'lines' => sub {
    is $test->hook(data_lines => lines => "Subject: x\r\n", offset => 0)->verdict, 'ok', 'seen enough';
    my $result = $test->hook(data_lines => lines => "ab\xff\r\n", offset => 12);
    is $result->verdict, 'deny', 'refused';
    is $result->reply, 'at 14', 'by the place in the message';
    is $result->delay_ms, 2000, 'slowly';
};

subtest 'delays' => sub {
    my $result = $test->hook(mail => address => 'a@b.example', parameters => {});
    is $result->delay_ms, 2500, 'what was asked for adds up';
    is $result->verdict, undef, 'and says nothing else';
    is_deeply $result->changes, [], 'nor changes anything';
    is $test->hook('noop')->delay_ms, 2500, 'anew each time';
};

subtest 'places' => sub {
    my %places = map { $_->{hook} => $_->{priority} } @{$test->ready->{hooks}};
    is_deeply \%places, {rcpt => 'first', mail => -3, helo => 'last', noop => undef, data_lines => undef}, 'as registered';
    my $plugin = $test->plugin;
    ok !eval { $plugin->register_hook('rcpt', 'hurried', priority => 'lst'); 1 }, 'a place that is none';
    like $@, qr/a priority is first, last or an integer, not "lst"/, 'is said';
};

subtest 'the example of the documentation' => sub {
    open my $document, '<', "$FindBin::RealBin/../../docs/writing-plugins.md" or die "writing-plugins.md: $!";
    my $text = do { local $/; <$document> };
    my ($example) = $text =~ /```perl\n(sub hook_data_lines .*?)```/s or die 'no example';
    my ($file, $path) = File::Temp::tempfile(UNLINK => 1);
    print $file $example;
    close $file or die "$path: $!";
    my $plugin = Gatepost::Test->new(plugin => $path);
    is $plugin->hook(data_lines => lines => "Subject: x\r\n", offset => 0)->verdict, undef, 'more';
    is $plugin->hook(data_lines => lines => "x\r\n", offset => 2_000_000)->verdict, 'ok', 'enough';
    my $result = $plugin->hook(data_lines => lines => "--b\r\nContent-Disposition: attachment\r\n", offset => 0);
    is $result->reply, 'no attachments here', 'refused';
};

done_testing;
