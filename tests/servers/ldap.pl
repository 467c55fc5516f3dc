# Stands for an LDAP server that has one user. It answers a search; nothing else is asked of it.
#
# perl ldap.pl USER DN

use strict;
use warnings;

use Convert::ASN1 qw(asn_read);
use IO::Socket::INET;
use Net::LDAP::ASN qw(LDAPRequest LDAPResponse);

our ($LDAPRequest, $LDAPResponse);
my ($user, $dn) = @ARGV;
my $listener = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 16) or die "$!\n";
STDOUT->autoflush(1);
print $listener->sockport, "\n";
while (my $client = $listener->accept) {
    while (asn_read($client, my $bytes)) {
        my $request = $LDAPRequest->decode($bytes);
        my $search = $request->{searchRequest} or next;
        my $answer = sub { print {$client} $LDAPResponse->encode(messageID => $request->{messageID}, protocolOp => {@_}) };
        if ($search->{filter}{equalityMatch}{assertionValue} eq $user) {
            $answer->(searchResEntry => {objectName => $dn, attributes => [{type => 'uid', vals => [$user]}]});
        }
        $answer->(searchResDone => {resultCode => 0, matchedDN => '', errorMessage => ''});
        $client->flush;
    }
}
