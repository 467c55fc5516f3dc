use strict;
use warnings;

use FindBin;
use Test::More;
use Gatepost::Test;

my $here = "$FindBin::RealBin/..";

subtest refuse_recipient => sub {
    my $test = Gatepost::Test->new(
        plugin => "$here/refuse_recipient.pl", settings => {addresses => ['Nobody@Example.org', '007@example.org']},
    );
    my $result = $test->hook(rcpt => address => 'nobody@example.org', parameters => {});
    is $result->verdict, 'deny', 'a listed recipient is refused';
    is $result->disposition, 'fail';
    is $result->message, 'no such user here';
    is $result->reply, 'no such user here';
    is $test->hook(rcpt => address => '007@EXAMPLE.org')->verdict, 'deny', 'case plays no part';

    $result = $test->hook(rcpt => address => 'bob@example.org');
    is $result->verdict, undef, 'another one is not';
    is $result->disposition, 'skip';
    is $result->message, 'not listed';

    $test = Gatepost::Test->new(
        plugin => "$here/refuse_recipient.pl", settings => {addresses => ['x@example.org'], message => 'gone fishing'},
    );
    is $test->hook(rcpt => address => 'x@example.org')->reply, 'gone fishing', 'the text is a setting';

    ok !eval { Gatepost::Test->new(plugin => "$here/refuse_recipient.pl"); 1 }, 'addresses is required';
    like $@, qr/^refuse_recipient: addresses: `addresses` is missing$/;
};

subtest tag_header => sub {
    my $test = Gatepost::Test->new(plugin => "$here/tag_header.pl", message => "Subject: x\n\nhello\n");
    my $result = $test->hook('data_post');
    is_deeply $result->changes, [{op => 'add_header', name => 'X-Gatepost-Tag', value => 'seen', at => 'top'}];
    is $result->disposition, 'pass';
    is $result->message, 'tagged with X-Gatepost-Tag';
    is $result->verdict, undef;

    $test = Gatepost::Test->new(
        plugin => "$here/tag_header.pl", settings => {header => 'X-Seen', value => 'yes'}, message => "Subject: x\n\nhello\n",
    );
    is $test->hook('data_post')->message, 'tagged with X-Seen', 'both are settings';
    is $test->transaction->header->as_string, "X-Seen: yes\nSubject: x\n", 'and the field is at the top';
};

subtest quarantine_attachment => sub {
    my $part = sub { "Subject: x\nContent-Type: multipart/mixed; boundary=b\n\n--b\n$_[0]\n\ncontent\n--b--\n" };
    my @cases = (
        ['quoted' => $part->('Content-Disposition: attachment; filename="Evil.EXE"'), 'Evil.EXE'],
        ['not quoted' => $part->('Content-Disposition: attachment; size=1; filename=run.js; x=y'), 'run.js'],
        ['the type\'s name' => $part->("Content-Type: application/octet-stream;\n\tname=\"a b.scr\""), 'a b.scr'],
        ['RFC 2231' => $part->("content-disposition: attachment; filename*=utf-8''evil%2Eexe"), 'evil.exe'],
        ['quoted RFC 2231 sign left alone' => $part->('Content-Disposition: attachment; filename="a%2Eexe.txt"'), undef],
        ['an escaped quote' => $part->('Content-Disposition: attachment; filename="a\"b.vbs"'), 'a"b.vbs'],
        ['the message itself' => "Content-Disposition: attachment; filename=x.exe\n\nMZ\n", 'x.exe'],
        ['harmless' => $part->('Content-Disposition: attachment; filename="report.pdf"'), undef],
        ['only in the text' => "Subject: x\n\nContent-Disposition: attachment; filename=x.exe\n", undef],
        ['in a part\'s text' => $part->("Content-Type: text/plain\n\nContent-Type: x; name=x.exe"), undef],
        ['no attachment' => "Subject: x\n\nhello\n", undef],
    );
    for my $case (@cases) {
        my ($what, $message, $found) = @$case;
        my $result = Gatepost::Test->new(plugin => "$here/quarantine_attachment.pl", message => $message)->hook('data_post');
        if (defined $found) {
            is_deeply $result->changes, [{op => 'quarantine', reason => "attachment $found"}], "$what: set apart";
            is $result->disposition, 'fail', "$what: disposition";
            is $result->verdict, 'declined', "$what: not refused";
            is $result->message, "attachment $found quarantined", "$what: message";
        }
        else {
            is_deeply $result->changes, [], "$what: not set apart";
            is $result->disposition, 'pass', "$what: disposition";
            is $result->message, 'no forbidden attachment', "$what: message";
        }
    }

    my $message = $part->('Content-Disposition: attachment; filename="x.docm"');
    my $test = Gatepost::Test->new(
        plugin => "$here/quarantine_attachment.pl", settings => {names => ['?.doc*']}, message => $message,
    );
    is $test->hook('data_post')->message, 'attachment x.docm quarantined', 'the names are a setting';
};

subtest quota => sub {
    my %about = (
        plugin => "$here/quota.pl", config => {mailbox_sizes => ['Bob@Example.org 1004', "carol\@example.org\t1005"]},
        transaction => {recipients => ['BOB@example.org', 'carol@example.org', 'new@example.org']},
        message => "Subject: x\n\nhell\n",
    );
    my $test = Gatepost::Test->new(%about, settings => {limit => '1KB'});
    my $result = $test->hook('data_post');
    is $result->disposition, 'pass';
    is $result->message, 'room in 2 of 3 mailboxes';
    my $recipients = $result->recipients;
    is_deeply [keys %$recipients], ['carol@example.org'], 'who has a full mailbox is refused';
    is $recipients->{'carol@example.org'}->verdict, 'deny';
    is $recipients->{'carol@example.org'}->message, 'mailbox full';

    $test->settings_in_force({limit => '2KB'});
    $result = $test->hook('data_post');
    is $result->message, 'room in 3 of 3 mailboxes', 'the limit is the one in force';
    is_deeply $result->recipients, {};

    ok !eval { Gatepost::Test->new(%about, settings => {limit => 'much'}); 1 };
    like $@, qr/^quota: limit: `limit` should be a size/;
};

done_testing;
